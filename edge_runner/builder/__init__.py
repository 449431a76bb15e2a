"""The workstation's wing: a SavedModel in, a proven bundle out. Nothing on the board imports it."""
