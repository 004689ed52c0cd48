"""Token files, encoding, windows for truncated backpropagation, and the built-in datasets."""
