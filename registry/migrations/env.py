"""Runs Alembic on the connection that registry/database.py opened."""

from alembic import context

from registry.database_tables import Base

context.configure(connection=context.config.attributes["connection"], target_metadata=Base.metadata)
with context.begin_transaction():
    context.run_migrations()
