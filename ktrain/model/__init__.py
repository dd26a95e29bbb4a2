"""Networks, their fast training forward, the loss, and stacked low-rank adapters."""
