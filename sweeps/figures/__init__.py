"""One grid for each figure of the paper, and the sweeps that combine them."""
