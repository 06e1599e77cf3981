"""The kind of index that a corpus is searched with."""

import sqlalchemy as sa
from alembic import op

revision = "0003"
down_revision = "0002"


def upgrade() -> None:
    """Add the column to the corpora."""
    op.add_column("corpora", sa.Column("index_kind", sa.Text, nullable=False, server_default="auto"))


def downgrade() -> None:
    """Back to schema 0002."""
    op.drop_column("corpora", "index_kind")
