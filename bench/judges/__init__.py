"""Judges: one for each task that can be evaluated. They make numbers of the daemon's results."""
