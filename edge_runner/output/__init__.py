"""Outputs: where results go. An output knows no camera and no model, only results."""

OUTPUTS = {
    "console": "edge_runner.output.console:Console",
    "jsonl": "edge_runner.output.jsonl:JsonLines",
    "npz": "edge_runner.output.npz:Npz",
}
"""An output's `type` -> where it stands."""
