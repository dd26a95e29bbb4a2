"""The paper's own numbers as data, and our results beside them."""
