"""Results as recorded in MLflow, typed: cells, replicates, rows by the paper's names, learning curves."""
