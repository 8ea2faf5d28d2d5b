"""The local state store: an SQLite mirror of the compacted topics, behind a bounded cache."""
