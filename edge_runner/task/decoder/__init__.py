"""Detectors' families: how each writes its boxes, scores and classes into tensors. Pure functions over arrays."""

DECODERS = {
    "tflite_postprocess": "edge_runner.task.decoder.postprocess:TflitePostprocess",
    "yolov5": "edge_runner.task.decoder.yolo:Yolov5",
    "yolov8": "edge_runner.task.decoder.yolo:Yolov8",
    "yolo_nms": "edge_runner.task.decoder.yolo:YoloNms",
    "ssd_raw": "edge_runner.task.decoder.ssd_raw:SsdRaw",
}
"""`task.decoder` -> its way to read the outputs."""
