"""Presets, each model's default one, and what an instance was loaded with: presets, idle time, devices."""

import sqlalchemy as sa
from alembic import op

revision = "0003"
down_revision = "0002"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.create_table(
        "presets",
        sa.Column("name", sa.String(255), nullable=False),
        sa.Column("version", sa.Integer(), nullable=False),
        sa.Column("model_key", sa.String(255), nullable=True),
        sa.Column("settings", sa.JSON(), nullable=False),
        sa.Column("changed_at", sa.Float(53), nullable=False),
        sa.PrimaryKeyConstraint("name", "version", name="pk_presets"),
    )
    op.add_column("models", sa.Column("default_preset", sa.String(255), nullable=True))
    op.add_column("instances", sa.Column("presets", sa.JSON(), nullable=True))
    op.add_column("instances", sa.Column("ttl", sa.Float(53), nullable=True))
    op.add_column("instances", sa.Column("placement", sa.JSON(), nullable=True))


def downgrade() -> None:
    op.drop_column("instances", "placement")
    op.drop_column("instances", "ttl")
    op.drop_column("instances", "presets")
    op.drop_column("models", "default_preset")
    op.drop_table("presets")
