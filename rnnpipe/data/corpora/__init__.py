"""Public corpora: the manifests that ship with the package, and fetching what they name."""
