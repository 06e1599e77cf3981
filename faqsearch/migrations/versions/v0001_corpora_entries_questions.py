"""Corpora, entries, questions, index builds and the query log."""

import sqlalchemy as sa
from alembic import op

revision = "0001"
down_revision = None


def upgrade() -> None:
    """Create the first schema."""
    # AUTOINCREMENT: an id is never used twice, not even after a deletion.
    op.create_table(
        "corpora",
        sa.Column("id", sa.Integer, primary_key=True),
        sa.Column("name", sa.Text, nullable=False, unique=True),
        sa.Column("title", sa.Text, nullable=False),
        sa.Column("encoder", sa.Text, nullable=False),
        sa.Column("answer_threshold", sa.Float, nullable=False),
        sa.Column("suggest_threshold", sa.Float, nullable=False),
        sa.Column("revision", sa.Integer, nullable=False, server_default="0"),
        sqlite_autoincrement=True,
    )
    op.create_table(
        "entries",
        sa.Column("id", sa.Integer, primary_key=True),
        sa.Column("corpus_id", sa.Integer, sa.ForeignKey("corpora.id", ondelete="CASCADE"), nullable=False),
        sa.Column("key", sa.Text),
        sa.Column("answer", sa.Text, nullable=False),
        sa.Column("category", sa.Text, nullable=False),
        sa.Column("enabled", sa.Boolean, nullable=False),
        sa.Column("valid_from", sa.DateTime),
        sa.Column("valid_to", sa.DateTime),
        sa.Column("created_at", sa.DateTime, nullable=False),
        sa.Column("updated_at", sa.DateTime, nullable=False),
        sa.UniqueConstraint("corpus_id", "key"),
        sqlite_autoincrement=True,
    )
    op.create_table(
        "questions",
        sa.Column("id", sa.Integer, primary_key=True),
        sa.Column("corpus_id", sa.Integer, sa.ForeignKey("corpora.id", ondelete="CASCADE"), nullable=False),
        sa.Column("entry_id", sa.Integer, sa.ForeignKey("entries.id", ondelete="CASCADE"), nullable=False),
        sa.Column("position", sa.Integer, nullable=False),  # 0: the primary question
        sa.Column("text", sa.Text, nullable=False),
        sa.Column("folded", sa.Text, nullable=False),  # text.normalise(text)
        sa.UniqueConstraint("corpus_id", "folded"),
        sqlite_autoincrement=True,
    )
    op.create_index("questions_by_entry", "questions", ["entry_id", "position"])
    op.create_index("questions_by_corpus", "questions", ["corpus_id", "id"])
    # An index version whose build is not here was built from another database, or from a later
    # state of this one before a backup came back: its question ids may mean other questions.
    op.create_table(
        "index_builds",
        sa.Column("build", sa.Text, primary_key=True),
        sa.Column("corpus_id", sa.Integer, sa.ForeignKey("corpora.id", ondelete="CASCADE"), nullable=False),
        sa.Column("at", sa.DateTime, nullable=False),
    )
    op.create_table(
        "query_log",
        sa.Column("id", sa.Integer, primary_key=True),
        sa.Column("corpus_id", sa.Integer, sa.ForeignKey("corpora.id", ondelete="CASCADE"), nullable=False),
        sa.Column("at", sa.DateTime, nullable=False),
        sa.Column("query", sa.Text, nullable=False),
        sa.Column("decision", sa.Text, nullable=False),
        sa.Column("entry_id", sa.Integer),  # no foreign key: the log outlives the entry
        sa.Column("question_id", sa.Integer),
        sa.Column("score", sa.Float),
        sa.Column("index_version", sa.Text),
        sa.Column("encode_ms", sa.Float, nullable=False),
        sa.Column("search_ms", sa.Float, nullable=False),
        sa.Column("fetch_ms", sa.Float, nullable=False),
        sa.Column("total_ms", sa.Float, nullable=False),
    )
    op.create_index("query_log_by_time", "query_log", ["corpus_id", "at"])


def downgrade() -> None:
    """Remove everything."""
    for table in ("query_log", "index_builds", "questions", "entries", "corpora"):
        op.drop_table(table)
