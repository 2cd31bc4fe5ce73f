"""Rules that read bytes."""
