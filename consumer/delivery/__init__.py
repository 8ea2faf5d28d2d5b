"""Pure: what goes out. Topic names, keys, envelopes, coverage and quarantine records, batching."""
