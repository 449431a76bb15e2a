"""The model: its bundle and labels, the recipe that prepares its input, and the interpreter that runs it."""
