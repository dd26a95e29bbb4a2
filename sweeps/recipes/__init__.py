"""The parts of the figures' grids: rows as axes, training and readout recipes, scales."""
