"""I/O: recordings of what the Pub/Sub API delivered, as Avro object container files."""
