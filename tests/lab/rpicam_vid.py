"""The tests' rpicam-vid: the sensor and the libcamera of a Raspberry Pi are what the machine that runs them has not.

It knows the real program's options (its core/options.cpp and core/video_options.hpp), refuses others in the same words and with the
same status, and writes what the real one writes: eight colour bars, at the frame rate, as I420 of a JPEG's levels with padded
rows, or as JPEGs. Of what belongs to the board it is told by the environment:

    LAB_ALIGNMENT   luma rows are padded to so many bytes: 64 (default; up to the Pi 4), 128 (Pi 5)
    LAB_CAMERAS     how many cameras there are (1)
    LAB_GIVES       WxH that the camera gives, whatever was asked for
    LAB_FRAMES      it crashes after so many frames
"""

import argparse
import os
import signal
import sys
import time

VALUES = (
    "camera", "verbose", "config", "info-text", "width", "height", "timeout", "output", "post-process-file", "preview", "rotation",
    "roi", "shutter", "analoggain", "gain", "metering", "exposure", "ev", "awb", "awbgains", "wrap", "brightness", "contrast",
    "saturation", "sharpness", "framerate", "denoise", "viewfinder-width", "viewfinder-height", "tuning-file", "lores-width",
    "lores-height", "mode", "viewfinder-mode", "buffer-count", "viewfinder-buffer-count", "autofocus-mode", "autofocus-range",
    "autofocus-speed", "autofocus-window", "lens-position", "hdr", "metadata", "metadata-format", "flicker-period", "bitrate",
    "profile", "level", "intra", "codec", "save-pts", "quality", "initial", "segment", "circular", "frames", "sync",
)  # fmt: skip
SWITCHES = (
    "help", "version", "list-cameras", "nopreview", "fullscreen", "qt-preview", "hflip", "vflip", "flush", "no-raw", "inline",
    "listen", "keypress", "signal", "split",
)  # fmt: skip
SHORT = {"timeout": "-t", "output": "-o", "nopreview": "-n", "verbose": "-v", "config": "-c", "help": "-h"}

# Blue, green, red of white, yellow, cyan, green, magenta, red, blue, black; muted: of full colours a wrong range would go unseen.
LOW, HIGH = 40, 200
COLOURS = [tuple(HIGH if on else LOW for on in bits) for bits in (
    (1, 1, 1), (0, 1, 1), (1, 1, 0), (0, 1, 0), (1, 0, 1), (0, 0, 1), (1, 0, 0), (0, 0, 0),
)]  # fmt: skip


def yuv(blue, green, red):
    """BT.601 with levels 0..255, as libcamera's sYCC has it."""
    luma = 0.299 * red + 0.587 * green + 0.114 * blue
    return round(luma), round(128 + (blue - luma) / 1.772), round(128 + (red - luma) / 1.402)


BARS = [yuv(*colour) for colour in COLOURS]


class Refused(Exception):
    """What the real program says between its three stars."""


class Options(argparse.ArgumentParser):
    def error(self, message):
        raise Refused(message)


def options():
    parser = Options(add_help=False)
    for name in VALUES:
        parser.add_argument(*filter(None, (SHORT.get(name), f"--{name}")))
    for name in SWITCHES:
        names = filter(None, (SHORT.get(name), f"--{name}"))
        parser.add_argument(*names, nargs="?", const="1", choices=("0", "1", "true", "false"))
    found, unknown = parser.parse_known_args()
    if unknown:
        raise Refused(f"unrecognised option '{unknown[0].partition('=')[0]}'")
    return found


def i420(width, height, row_bytes):
    """The padding is noise of a kind: whoever takes it for a picture's part shows that."""
    junk = bytes(range(200, 200 + 32))

    def plane(index, pixels, padded, rows):
        row = bytes(BARS[x * 8 // pixels][index] for x in range(pixels))
        return (row + (junk * padded)[: padded - pixels]) * rows

    half = (width // 2, row_bytes // 2, height // 2)
    return plane(0, width, row_bytes, height) + plane(1, *half) + plane(2, *half)


def jpeg(width, height, quality):
    import cv2
    import numpy as np

    planes = np.frombuffer(i420(width, height, width), np.uint8)
    luma = planes[: width * height].reshape(height, width)
    first, second = planes[width * height :].reshape(2, height // 2, width // 2)
    wide = [np.repeat(np.repeat(plane, 2, 0), 2, 1) for plane in (second, first)]
    picture = cv2.cvtColor(np.dstack([luma, *wide]), cv2.COLOR_YCrCb2BGR)
    return cv2.imencode(".jpg", picture, [cv2.IMWRITE_JPEG_QUALITY, quality])[1].tobytes()


def say(line):
    sys.stderr.write(line + "\n")
    sys.stderr.flush()


def camera_size(asked):
    """The size that the camera gives; Refused where there is no such camera."""
    cameras = int(os.environ.get("LAB_CAMERAS", "1"))
    say("[0:13:57.732391469] [810]  INFO Camera camera_manager.cpp:326 libcamera v0.5.0+59-d83ff0a4")
    if cameras == 0:
        raise Refused("no cameras available")
    if int(asked.camera or 0) >= cameras:
        raise Refused("selected camera is not available")
    size = os.environ.get("LAB_GIVES", f"{asked.width}x{asked.height}")
    if "LAB_GIVES" in os.environ:
        say("Stream configuration adjusted")
    say(
        f"[0:13:58.093392529] [810]  INFO Camera camera.cpp:1205 configuring streams: (0) {size}-YUV420/sYCC"
        " (1) 2304x1296-BGGR_PISP_COMP1/RAW"
    )
    return (int(number) for number in size.split("x"))


def run():
    asked = options()
    if asked.output != "-" or asked.timeout != "0":
        raise Refused("the tests read frames from the standard output, without an end")
    if asked.codec not in ("yuv420", "mjpeg"):
        raise Refused(f"unrecognised codec {asked.codec}")
    if asked.flush is None:
        raise Refused("without flush frames come late")
    width, height = camera_size(asked)
    alignment = int(os.environ.get("LAB_ALIGNMENT", "64"))
    if asked.codec == "mjpeg":
        frame = jpeg(width, height, int(asked.quality or 50))
    else:
        frame = i420(width, height, -(-width // alignment) * alignment)
    interval_s, due, count = 1 / float(asked.framerate or 30), time.monotonic(), 0
    while count != int(os.environ.get("LAB_FRAMES", "-1")):
        sys.stdout.buffer.write(frame)
        sys.stdout.buffer.flush()
        count, due = count + 1, due + interval_s
        time.sleep(max(0.0, due - time.monotonic()))
    say("terminate called without an active exception")
    os.kill(os.getpid(), signal.SIGABRT)


if __name__ == "__main__":
    try:
        run()
    except Refused as refusal:
        say(f"ERROR: *** {refusal} ***")
        sys.exit(255)
    except BrokenPipeError:
        sys.stderr.close()
