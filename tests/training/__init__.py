"""Tests of the training package; each module is skipped, with its reason, where what it needs is not installed."""
