"""The database schema's history. Alembic applies what is missing whenever a database is opened."""
