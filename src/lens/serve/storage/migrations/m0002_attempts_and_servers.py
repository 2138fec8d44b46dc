"""Attempts of jobs, and the servers that share a database."""

revision = "0002"
down_revision = "0001"
branch_labels = None
depends_on = None


def upgrade() -> None:
    import sqlalchemy as sa
    from alembic import op

    op.add_column("jobs", sa.Column("attempts", sa.Integer(), nullable=False, server_default="0"))
    op.create_table(
        "servers",
        sa.Column("name", sa.String(80), primary_key=True),
        sa.Column("instance", sa.String(40), nullable=False),
        sa.Column("lease_until", sa.Float(), nullable=False),
    )


def downgrade() -> None:
    from alembic import op

    op.drop_table("servers")
    op.drop_column("jobs", "attempts")
