"""Readers: from text to ids and levels, and from ids to text."""
