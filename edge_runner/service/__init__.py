"""What keeps the pipeline going: the loop, signals, and what the board says of itself."""
