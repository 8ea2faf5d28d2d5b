"""I/O: login, tokens, and the Pub/Sub API stream."""
