"""What a person looks at: tables, baselines and pictures of boundaries. No training code."""
