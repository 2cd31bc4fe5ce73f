"""Splitters that are trained: options, networks and teachers."""
