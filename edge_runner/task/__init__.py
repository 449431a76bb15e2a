"""Tasks: pure functions from a model's output tensors to answers. No I/O, no threads."""

TASKS = {"classify": "edge_runner.task.classify:Classify"}
"""`task.type` -> where the task stands."""
