"""What a study shows."""
