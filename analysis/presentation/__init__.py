"""How numbers are written, and the plain data that pages and tables are made of."""
