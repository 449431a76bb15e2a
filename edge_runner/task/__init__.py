"""Tasks: pure functions from a model's output tensors to answers. No I/O, no threads."""

TASKS = {
    "classify": "edge_runner.task.classify:Classify",
    "detect": "edge_runner.task.detect:Detect",
    "pose": "edge_runner.task.pose:Pose",
    "raw": "edge_runner.task.raw:Raw",
    "segment": "edge_runner.task.segment:Segmenter",
}
"""`task.type` -> where the task stands."""
