"""The training loop, the DeepSpeed engine under it, and fitting one stage from its latest checkpoint."""
