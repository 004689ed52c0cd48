"""Configurations that ship with rnnpipe: data only, one TOML file each."""
