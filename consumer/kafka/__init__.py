"""I/O: transactions, topics, positions, group membership."""
