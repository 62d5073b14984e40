"""Delta tables: their log, their files, and commits that hold rows and a position at once (docs/stream.md)."""
