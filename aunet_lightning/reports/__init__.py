"""Reports for people: tables, baselines and pictures of boundaries. No training code."""
