"""Automata that run rules, over a complete text and byte by byte."""
