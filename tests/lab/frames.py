"""The tests' `command`: writes raw gray8 frames, and then does what programs do that ought not to be trusted.

    python frames.py MODE [--size 64x48] [--fps 30] [--after FRAMES]

Every pixel of frame n is n modulo 256. MODE is what happens after so many frames (see MODES).
"""

from __future__ import annotations

import argparse
import os
import signal
import subprocess
import sys
import time

MODES = {
    "runs": "nothing; frames for ever",
    "exits": "it ends, with a word and status 3",
    "half": "half a frame, and it ends",
    "silent": "it writes nothing more, and stays",
    "floods": "frames for ever, and as many words as can be written",
    "stubborn": "as silent, and SIGTERM is ignored",
    "leaves": "as silent, and a child of its own keeps its pipe",
    "same": "the same frame for ever",
}


def main() -> None:
    """Write frames until something else is due."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("mode", choices=MODES)
    parser.add_argument("--size", default="64x48")
    parser.add_argument("--fps", type=float, default=30)
    parser.add_argument("--after", type=int, default=20)
    options = parser.parse_args()
    width, height = map(int, options.size.split("x"))
    if options.mode == "stubborn":
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
    started, number = time.monotonic(), 0
    while True:
        late = number >= options.after
        if late and options.mode in ENDINGS:
            ENDINGS[options.mode](width * height)
        level = 0 if late and options.mode == "same" else number % 256
        write(1, bytes([level]) * (width * height))
        if late and options.mode == "floods":
            write(2, b"something is not as it should be, or is it?\n" * 20_000)
        number += 1
        time.sleep(max(0.0, started + number / options.fps - time.monotonic()))


def write(descriptor: int, content: bytes) -> None:
    while content:
        content = content[os.write(descriptor, content) :]


def exits(frame_bytes: int) -> None:
    write(2, b"frames: the cable was pulled\n")
    sys.exit(3)


def half(frame_bytes: int) -> None:
    write(1, bytes(frame_bytes // 2))
    sys.exit(0)


def silent(frame_bytes: int) -> None:
    time.sleep(3600)


def leaves(frame_bytes: int) -> None:
    subprocess.Popen(["sleep", "3600"])
    silent(frame_bytes)


ENDINGS = {"exits": exits, "half": half, "silent": silent, "stubborn": silent, "leaves": leaves}

if __name__ == "__main__":
    main()
