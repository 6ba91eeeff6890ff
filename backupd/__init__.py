"""backupd: consistent, deduplicated, proven backups of a Docker Compose stack's volumes."""

__version__ = "0.1.0"
