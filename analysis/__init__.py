"""From recorded runs to tables, figures and one report; the paper's own numbers as data."""
