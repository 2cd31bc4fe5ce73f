"""How a rule runs, over a whole text and byte by byte."""
