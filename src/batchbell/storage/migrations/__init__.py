"""Migrations: how the schema came to be what `storage.schema` says. Alembic runs them."""
