"""The paper's conclusions as tests with thresholds, and their verdicts."""
