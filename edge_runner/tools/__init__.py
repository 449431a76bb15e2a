"""Commands beside the daemon: one verb a file."""
