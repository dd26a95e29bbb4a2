"""One trial: people -> corpus -> windows -> model -> training -> readouts. Knows nothing of grids."""

__version__ = "0.1.0"
