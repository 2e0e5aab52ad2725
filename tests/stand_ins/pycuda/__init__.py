"""Stands in for pycuda where the real one is not installed."""
