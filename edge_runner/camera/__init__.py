"""Cameras: where frames come from. A camera knows no model: the feed hands it what prepares a frame."""

CAMERAS = {
    "v4l2": "edge_runner.camera.v4l2:V4l2",
    "rpicam": "edge_runner.camera.rpicam:Rpicam",
    "command": "edge_runner.camera.command:Command",
    "stream": "edge_runner.camera.stream:Stream",
    "images": "edge_runner.camera.images:Images",
    "video": "edge_runner.camera.video:Video",
    "pattern": "edge_runner.camera.pattern:Pattern",
}
"""`camera.type` -> where the camera stands."""
