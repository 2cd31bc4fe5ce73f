"""Evaluation: what a model knows beside its bits per byte, in items that rules make of any text.

`language_text` has words and characters of a language's text; `task` is what makes items of it, `items` their form in
files; `answers` lets a model choose by likelihood, and counts. `robustness` scores text that is written otherwise,
`translation` asks parallel text for its English.
"""
