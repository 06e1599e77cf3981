"""Versions and history of entries; feedback and the queue of unanswered queries in the query log."""

import sqlalchemy as sa
from alembic import op

revision = "0002"
down_revision = "0001"


def upgrade() -> None:
    """Add the history table and the columns of the query log."""
    op.add_column("entries", sa.Column("version", sa.Integer, nullable=False, server_default="1"))
    op.create_table(
        "changes",
        sa.Column("id", sa.Integer, primary_key=True),
        sa.Column("corpus_id", sa.Integer, sa.ForeignKey("corpora.id", ondelete="CASCADE"), nullable=False),
        sa.Column("entry_id", sa.Integer, nullable=False),  # no foreign key: the history outlives the entry
        sa.Column("at", sa.DateTime, nullable=False),
        sa.Column("who", sa.Text, nullable=False),
        sa.Column("action", sa.Text, nullable=False),
        sa.Column("before", sa.Text),  # the entry as JSON; NULL where there was none
    )
    op.create_index("changes_by_entry", "changes", ["entry_id", "id"])
    op.add_column("query_log", sa.Column("ref", sa.Text))
    op.add_column("query_log", sa.Column("queued", sa.Boolean, nullable=False, server_default="0"))
    op.add_column("query_log", sa.Column("feedback", sa.Text))
    op.add_column("query_log", sa.Column("feedback_entry_id", sa.Integer))
    op.add_column("query_log", sa.Column("feedback_who", sa.Text))
    op.add_column("query_log", sa.Column("feedback_at", sa.DateTime))
    op.add_column("query_log", sa.Column("handled", sa.Text))
    op.add_column("query_log", sa.Column("handled_who", sa.Text))
    op.add_column("query_log", sa.Column("handled_at", sa.DateTime))
    op.create_index("query_log_by_ref", "query_log", ["ref"], unique=True)
    op.create_index("query_log_open", "query_log", ["corpus_id", "handled"])


def downgrade() -> None:
    """Back to schema 0001."""
    op.drop_index("query_log_open", "query_log")
    op.drop_index("query_log_by_ref", "query_log")
    names = ("ref", "queued", "feedback", "feedback_entry_id", "feedback_who", "feedback_at")
    for name in (*names, "handled", "handled_who", "handled_at"):
        op.drop_column("query_log", name)
    op.drop_table("changes")
    op.drop_column("entries", "version")
