"""A trained model as MLflow keeps and serves it: generation, streaming and scores."""
