"""The stages, each a plain function from names and paths to files; where names become objects."""
