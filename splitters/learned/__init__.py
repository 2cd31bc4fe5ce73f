"""Splitters that are trained: their options and networks."""
