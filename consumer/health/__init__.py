"""I/O: liveness, readiness and metrics over HTTP."""
