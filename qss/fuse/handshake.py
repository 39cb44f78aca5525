"""What the kernel is asked for at the start of a mount, beyond what pyfuse3 can ask for.

pyfuse3 answers the kernel's first request (FUSE_INIT) from C and lets nobody change the answer. So the session's file
is, for that one request, a socket: the request goes through it to libfuse, libfuse's answer comes back, some bits are
added, and the answer goes to the kernel. Then the session's file is /dev/fuse again, and nothing of ours is between.

    kernel ── /dev/fuse ── Handshake ── socket ── libfuse        for FUSE_INIT
    kernel ── /dev/fuse ───────────────────────── libfuse        ever after

Source of the format: include/uapi/linux/fuse.h of Linux (struct fuse_in_header, fuse_init_in, fuse_out_header,
fuse_init_out), protocol 7.31 and later. docs/adr/0085.
"""

from __future__ import annotations

import os
import socket
import struct
from typing import Final

from qss.limits import MIB

FUSE_INIT: Final = 26  # opcode
DONT_MASK: Final = 1 << 6
"""We apply the umask, because only we know whether a default access list stands above it."""
HANDLE_KILLPRIV_V2: Final = 1 << 28
"""We take setuid and setgid away; so the kernel need not ask for a capability before every write."""
BACKGROUND_REQUESTS_MAX: Final = 512
"""Reads ahead the kernel sends at the same time. Reads stuck on dead locations count too, hence so many."""

_REQUEST: Final = struct.Struct("<IIQQIIIHH IIII")  # in_header, then major, minor, max_readahead, flags
_ANSWER: Final = struct.Struct("<IiQ IIIIHH")  # out_header, then the same four, max_background, congestion_threshold
_REQUEST_BYTES_MAX: Final = MIB + 4096  # as libfuse's own buffer


def wanted(request: bytes, answer: bytes) -> bytes:
    """libfuse's answer to FUSE_INIT with what we want of that the kernel offers; as it is, if it is another answer."""
    if len(request) < _REQUEST.size or len(answer) < _ANSWER.size:
        return answer
    _, opcode, *_, offered = _REQUEST.unpack_from(request)
    length, error, unique, major, minor, read_ahead, flags, _, _ = _ANSWER.unpack_from(answer)
    if opcode != FUSE_INIT or error:
        return answer
    flags |= (DONT_MASK | HANDLE_KILLPRIV_V2) & offered
    head = _ANSWER.pack(
        length, error, unique, major, minor, read_ahead, flags,
        BACKGROUND_REQUESTS_MAX, BACKGROUND_REQUESTS_MAX * 3 // 4,
    )  # fmt: skip
    return head + answer[_ANSWER.size :]


class Handshake:
    """Between reading the request and giving the answer libfuse has its turn: `begin`, libfuse, `end`."""

    def __init__(self) -> None:
        self._request = b""
        self._device = -1
        self._ours: socket.socket | None = None

    @property
    def begun(self) -> bool:
        return self._ours is not None

    def begin(self, session: int) -> None:
        """The session's file has a first request to read: pass it on through a socket in its place. Raises OSError."""
        self._request = os.read(session, _REQUEST_BYTES_MAX)
        self._device = os.dup(session)
        self._ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        with theirs:
            os.dup2(theirs.fileno(), session, inheritable=False)
        self._ours.send(self._request)

    def end(self, session: int) -> None:
        """libfuse has had its turn: answer the kernel, and put the device back. Raises OSError: it has not answered."""
        assert self._ours is not None
        answer = self._ours.recv(_REQUEST_BYTES_MAX, socket.MSG_DONTWAIT)
        os.write(self._device, wanted(self._request, answer))
        os.dup2(self._device, session, inheritable=False)
        os.close(self._device)
        self._ours.close()
