"""From a grid to cells, distinct stages, their state and their cost. Touches nothing."""
