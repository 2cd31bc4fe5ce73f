"""How text becomes ids and levels, and ids become text."""
