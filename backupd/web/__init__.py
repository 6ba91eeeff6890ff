"""What the daemon serves over HTTP: probes, metrics, and an API that only reads. Imported late."""
