"""Measurements of training; each prints JSON."""
