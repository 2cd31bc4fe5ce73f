"""Splitters that read bytes only."""
