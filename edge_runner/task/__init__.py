"""Tasks: pure functions from a model's output tensors to answers. No I/O, no threads."""

TASKS = {
    "classify": "edge_runner.task.classify:Classify",
    "detect": "edge_runner.task.detect:Detect",
    "raw": "edge_runner.task.raw:Raw",
}
"""`task.type` -> where the task stands."""
