"""Every figure: bars, heat maps, probes, learning curves, set diagrams."""
