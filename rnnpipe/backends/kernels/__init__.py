"""Triton kernels: each proved equal to plain torch in Triton's interpreter, and compiled for a GPU without one.

None has been run on a GPU yet, so nothing is known of their speed.
"""
