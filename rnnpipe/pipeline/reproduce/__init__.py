"""The reference experiments: published settings and results, run again, and recipes of ours."""
