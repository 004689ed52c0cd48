"""Recurrent cells: `base` has the contract, every other file one cell."""
