"""The one writer to MLflow, and the comparison views it prepares there."""
