"""Alembic's way in: migrations run on the connection that `storage.migrating` hands over."""

from alembic import context

from batchbell.storage.schema import metadata

context.configure(
    connection=context.config.attributes["connection"],
    target_metadata=metadata,
    transaction_per_migration=False,
    transactional_ddl=True,
)
context.run_migrations()
