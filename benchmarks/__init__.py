"""Measurements, run by hand; they print JSON and are no tests."""
