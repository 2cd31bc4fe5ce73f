"""The page of a run: what is looked at in its model, and how that is drawn beside what the run has logged."""
