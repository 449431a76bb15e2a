"""Outputs: where results go. An output knows no camera and no model, only results."""

OUTPUTS = {
    "console": "edge_runner.output.console:Console",
    "jsonl": "edge_runner.output.jsonl:JsonLines",
    "mqtt": "edge_runner.output.mqtt:Mqtt",
    "npz": "edge_runner.output.npz:Npz",
    "snapshots": "edge_runner.output.snapshots:Snapshots",
}
"""An output's `type` -> where it stands."""
