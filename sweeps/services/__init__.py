"""`ktrain serve`: MLflow on PostgreSQL, with logins, on loopback."""
