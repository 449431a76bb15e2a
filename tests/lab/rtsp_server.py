"""The tests' network camera: a real RTSP server, run by the system's Python, which has GStreamer's bindings.

    /usr/bin/python3 rtsp_server.py PORT [--size 320x240] [--fps 15] [--key-seconds 1] [--login] [--then 480x360 --after 2]

/h264 and /mjpeg show eight colour bars over a strip of 20 black or white blocks: the CLOCK_MONOTONIC milliseconds at which the
frame was made, modulo 2**20, highest bit first. With --login, only for user `user` with password `pa ss`. With --then, the size
changes that many seconds after the first client came. It prints `ready PORT`; PORT 0 is any free one.
"""

import argparse
import sys
import time

import gi

gi.require_version("Gst", "1.0")
gi.require_version("GstRtspServer", "1.0")
from gi.repository import GLib, Gst, GstRtspServer  # noqa: E402

BITS = 20
USER, PASSWORD = "user", "pa ss"
# Y, U, V (BT.601) of white, yellow, cyan, green, magenta, red, blue, black
BARS = (
    (235, 128, 128), (210, 16, 146), (170, 166, 16), (145, 54, 34), (106, 202, 222), (81, 90, 240), (41, 240, 110), (16, 128, 128),
)  # fmt: skip
ENCODERS = {
    "h264": "x264enc tune=zerolatency speed-preset=ultrafast key-int-max={key} bitrate=1500 threads=1 "
    "! rtph264pay config-interval=-1 name=pay0 pt=96",
    "mjpeg": "videoconvert ! video/x-raw,format=I420,colorimetry=1:4:0:0 ! jpegenc ! rtpjpegpay name=pay0 pt=26",
}


class Painter:
    """Frames of one size, I420."""

    def __init__(self, width, height):
        self.width, self.height = width, height
        self.strip_rows = height // 8 // 2 * 2
        self.planes = []
        for plane, (columns, rows) in enumerate(
            ((width, height), (width // 2, height // 2), (width // 2, height // 2))
        ):
            row = bytes(BARS[x * len(BARS) // columns][plane] for x in range(columns))
            strip = self.strip_rows if plane == 0 else self.strip_rows // 2
            self.planes.append(row * (rows - strip) + bytes([128]) * columns * strip * (plane > 0))

    def paint(self):
        shown = int(time.monotonic() * 1000) % 2**BITS
        row = bytes(235 if shown >> (BITS - 1 - x * BITS // self.width) & 1 else 16 for x in range(self.width))
        return self.planes[0] + row * self.strip_rows + self.planes[1] + self.planes[2]

    def caps(self, fps):
        return Gst.Caps.from_string(
            f"video/x-raw,format=I420,width={self.width},height={self.height},framerate={fps}/1,colorimetry=bt601"
        )


class Show:
    """Pushes frames into one pipeline for as long as that takes them."""

    def __init__(self, source, options):
        self.source, self.options, self.then = source, options, options.then
        self.painter = Painter(*options.size)
        options.began = options.began or time.monotonic()
        source.set_property("caps", self.painter.caps(options.fps))
        GLib.timeout_add(1000 // options.fps, self.push)

    def push(self):
        if self.then and time.monotonic() - self.options.began > self.options.after:
            self.painter, self.then = Painter(*self.then), None
            self.source.set_property("caps", self.painter.caps(self.options.fps))
        flow = self.source.emit("push-buffer", Gst.Buffer.new_wrapped(self.painter.paint()))
        return flow == Gst.FlowReturn.OK


def factory(codec, options):
    made = GstRtspServer.RTSPMediaFactory()
    encoder = ENCODERS[codec].format(key=max(1, round(options.fps * options.key_seconds)))
    made.set_launch(f"( appsrc name=source is-live=true do-timestamp=true format=time ! queue ! {encoder} )")
    made.set_shared(True)
    made.set_latency(0)
    made.connect("media-configure", lambda _, media: Show(media.get_element().get_by_name("source"), options))
    return made


def wants_login(server, mounted):
    """Let USER with PASSWORD in, and nobody else."""
    auth, token = GstRtspServer.RTSPAuth(), GstRtspServer.RTSPToken()
    token.set_string(GstRtspServer.RTSP_TOKEN_MEDIA_FACTORY_ROLE, "user")
    auth.add_basic(GstRtspServer.RTSPAuth.make_basic(USER, PASSWORD), token)
    server.set_auth(auth)
    for made in mounted:
        permissions = GstRtspServer.RTSPPermissions()
        permissions.add_permission_for_role("user", "media.factory.access", True)
        permissions.add_permission_for_role("user", "media.factory.construct", True)
        made.set_permissions(permissions)


def size(text):
    width, height = map(int, text.split("x"))
    return width, height


def main(arguments):
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("port", type=int)
    parser.add_argument("--size", type=size, default=(320, 240))
    parser.add_argument("--fps", type=int, default=15)
    parser.add_argument("--key-seconds", type=float, default=1)
    parser.add_argument("--then", type=size)
    parser.add_argument("--after", type=float, default=2)
    parser.add_argument("--login", action="store_true")
    parser.set_defaults(began=0.0)
    options = parser.parse_args(arguments)
    Gst.init(None)
    server = GstRtspServer.RTSPServer()
    server.set_address("127.0.0.1")
    server.set_service(str(options.port))
    mounted = {f"/{codec}": factory(codec, options) for codec in ENCODERS}
    if options.login:
        wants_login(server, mounted.values())
    for path, made in mounted.items():
        server.get_mount_points().add_factory(path, made)
    if not server.attach(None):
        sys.exit(f"port {options.port} cannot be had")
    sys.stdout.write(f"ready {server.get_bound_port()}\n")
    sys.stdout.flush()
    GLib.MainLoop().run()


if __name__ == "__main__":
    main(sys.argv[1:])
