"""PostgreSQL servers, copied while they run."""

from backupd.consistency.postgres.recognise import recognises
from backupd.consistency.postgres.strategy import PostgresStrategy

__all__ = ["PostgresStrategy", "recognises"]
