"""Downloads, and where a model comes from."""

import sqlalchemy as sa
from alembic import op

revision = "0002"
down_revision = "0001"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.add_column("models", sa.Column("provenance", sa.JSON(), nullable=True))
    op.create_table(
        "downloads",
        sa.Column("id", sa.String(255), nullable=False),
        sa.Column("reference", sa.Text(), nullable=False),
        sa.Column("source", sa.String(255), nullable=False),
        sa.Column("repo", sa.Text(), nullable=False),
        sa.Column("commit", sa.String(255), nullable=False),
        sa.Column("licence", sa.Text(), nullable=False),
        sa.Column("files", sa.JSON(), nullable=False),
        sa.Column("state", sa.String(255), nullable=False),
        sa.Column("error", sa.JSON(), nullable=True),
        sa.Column("model_key", sa.String(255), nullable=False),
        sa.Column("started_at", sa.Float(53), nullable=False),
        sa.Column("finished_at", sa.Float(53), nullable=False),
        sa.PrimaryKeyConstraint("id", name="pk_downloads"),
    )


def downgrade() -> None:
    op.drop_table("downloads")
    op.drop_column("models", "provenance")
