"""A study in a tracking server: MLflow, or Weights & Biases."""
