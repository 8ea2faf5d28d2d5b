"""I/O: the preflight behind `check`; every finding says what was seen and how to mend it."""
