"""Reads of the org beside the stream: facts, repairs, snapshots, history, refreshes, reconciliation."""
