"""Cameras: where frames come from. A camera knows no model: the feed hands it what prepares a frame."""

CAMERAS = {
    "images": "edge_runner.camera.images:Images",
    "video": "edge_runner.camera.video:Video",
    "pattern": "edge_runner.camera.pattern:Pattern",
}
"""`camera.type` -> where the camera stands."""
