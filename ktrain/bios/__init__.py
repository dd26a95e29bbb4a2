"""bioS: people drawn from pools, and entries written from sentence templates (paper, section 2.1)."""
