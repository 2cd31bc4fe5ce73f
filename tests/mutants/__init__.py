"""Planted faults, and a proof that each makes a test fail: `make mutants`."""
