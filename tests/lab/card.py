"""A memory card that forgets: it keeps what was flushed, and of all else, when the power goes, whatever chance has it.

It is a network block device (github.com/NetworkBlockDevice/nbd, doc/proto.md) for one virtual machine at a time. Writes stay in
memory until the machine has them flushed; where the power is cut before, each sector of them is written or not.
"""

from __future__ import annotations

import random
import socket
import struct
import threading
from contextlib import suppress
from pathlib import Path

SECTOR_BYTES = 512

HELLO = b"NBDMAGIC"
OPTION = b"IHAVEOPT"
FIXED_NEWSTYLE = 1
OPTION_REPLY, REQUEST, REPLY = 0x3E889045565A9, 0x25609513, 0x67446698
ABORT, GO = 2, 7
ACK, INFO, UNSUPPORTED = 1, 3, 0x80000001
EXPORT = 0
HAS_FLAGS, TAKES_FLUSH = 1, 4
READ, WRITE, LEAVE, FLUSH = range(4)


class Card:
    """The image `path`, at the Unix socket `place`. The machine that uses it has to be gone when the next one comes."""

    def __init__(self, path: Path, place: Path, chance: random.Random) -> None:
        self.flushes = 0
        """In all. So are those sectors that were not flushed when the power went, and were `forgotten`, or `survived`."""
        self.forgotten = self.survived = 0
        self.dead = threading.Event()
        """The power is cut: nothing is answered any more."""
        self._image = path.open("r+b", buffering=0)
        self._size = path.stat().st_size
        self._chance = chance
        self._unflushed: dict[int, bytes] = {}
        self._lock = threading.Lock()
        self._left: int | None = None
        self._socket = socket.socket(socket.AF_UNIX)
        self._socket.bind(str(place))
        self._socket.listen()
        self._thread = threading.Thread(target=self._serve, name="card", daemon=True)
        self._thread.start()

    def cut_soon(self, requests: int) -> None:
        """Have the power go after so many requests more, in the middle of whatever the machine is about."""
        with self._lock:
            self._left = requests

    def cut(self) -> None:
        """The power goes, if it has not gone already; what was not flushed is decided upon. Then the card can be used again."""
        with self._lock:
            self.dead.set()
            share = self._chance.choice([0.0, 0.0, 0.25, 0.75, 1.0])
            for sector, content in sorted(self._unflushed.items()):
                if self._chance.random() < share:
                    self._put(sector, content)
                    self.survived += 1
                else:
                    self.forgotten += 1
            self._unflushed = {}
            self._left = None

    def power_on(self) -> None:
        """For the next machine."""
        self.dead.clear()

    def close(self) -> None:
        """As whoever takes a card out after the machine was shut down."""
        self._socket.close()
        self._image.close()

    def _serve(self) -> None:
        while True:
            try:
                machine, _ = self._socket.accept()
            except OSError:
                return
            with machine, suppress(OSError, EOFError):
                _greet(machine, self._size)
                self._answer(machine)

    def _answer(self, machine: socket.socket) -> None:
        while True:
            magic, _, kind, handle, offset, length = struct.unpack(">IHHQQI", _receive(machine, 28))
            assert magic == REQUEST
            content = _receive(machine, length) if kind == WRITE else b""
            if kind == LEAVE:
                return
            with self._lock:
                if self._left is not None:
                    self._left -= 1
                    if self._left < 0:
                        self.dead.set()
                if self.dead.is_set():
                    continue  # without an answer, until the machine is gone
                answer = self._do(kind, offset, length, content)
            machine.sendall(struct.pack(">IIQ", REPLY, 0, handle) + answer)

    def _do(self, kind: int, offset: int, length: int, content: bytes) -> bytes:
        assert offset % SECTOR_BYTES == length % SECTOR_BYTES == 0
        first, count = offset // SECTOR_BYTES, length // SECTOR_BYTES
        if kind == WRITE:
            for n in range(count):
                self._unflushed[first + n] = content[n * SECTOR_BYTES : (n + 1) * SECTOR_BYTES]
        elif kind == FLUSH:
            self.flushes += 1
            for sector, held in self._unflushed.items():
                self._put(sector, held)
            self._unflushed = {}
        else:
            assert kind == READ
            self._image.seek(offset)
            found = bytearray(self._image.read(length))
            for n in range(count):
                if held := self._unflushed.get(first + n):
                    found[n * SECTOR_BYTES : (n + 1) * SECTOR_BYTES] = held
            return bytes(found)
        return b""

    def _put(self, sector: int, content: bytes) -> None:
        self._image.seek(sector * SECTOR_BYTES)
        self._image.write(content)


def _greet(machine: socket.socket, size: int) -> None:
    machine.sendall(HELLO + OPTION + struct.pack(">H", FIXED_NEWSTYLE))
    _receive(machine, 4)
    while True:
        _, option, length = struct.unpack(">8sII", _receive(machine, 16))
        _receive(machine, length)

        def reply(kind: int, content: bytes = b"", option: int = option) -> None:
            machine.sendall(struct.pack(">QIII", OPTION_REPLY, option, kind, len(content)) + content)

        if option == GO:
            reply(INFO, struct.pack(">HQH", EXPORT, size, HAS_FLAGS | TAKES_FLUSH))
            reply(ACK)
            return
        if option == ABORT:
            raise EOFError
        reply(UNSUPPORTED)


def _receive(machine: socket.socket, count: int) -> bytes:
    content = b""
    while len(content) < count:
        more = machine.recv(count - len(content))
        if not more:
            raise EOFError
        content += more
    return content
