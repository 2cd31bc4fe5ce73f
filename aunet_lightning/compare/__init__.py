"""A study: runs over splitters, languages, stages and seeds at equal cost, and what came of them."""
