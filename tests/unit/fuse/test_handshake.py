"""The kernel's first request and its answer: only what is offered is asked for, and everything else stays."""

from __future__ import annotations

import os
import socket
import struct

import pytest
from hypothesis import given
from hypothesis import strategies as st

from qss.fuse.handshake import BACKGROUND_REQUESTS_MAX, DONT_MASK, FUSE_INIT, HANDLE_KILLPRIV_V2, Handshake, wanted

OURS = DONT_MASK | HANDLE_KILLPRIV_V2
u32 = st.integers(0, 2**32 - 1)


def request(offered: int, opcode: int = FUSE_INIT) -> bytes:
    return struct.pack("<IIQQIIIHH", 56, opcode, 7, 0, 0, 0, 0, 0, 0) + struct.pack("<IIII", 7, 38, 131072, offered)


def answer(flags: int, error: int = 0, rest: bytes = bytes(40)) -> bytes:
    return struct.pack("<IiQ", 80, error, 7) + struct.pack("<IIIIHH", 7, 36, 131072, flags, 0, 0) + rest


@given(u32, u32, st.binary(max_size=60))
def test_what_is_offered_is_added_and_nothing_else_changes(offered, flags, rest):
    got = wanted(request(offered), answer(flags, rest=rest))
    assert struct.unpack_from("<I", got, 28)[0] == flags | offered & OURS
    assert struct.unpack_from("<HH", got, 32) == (BACKGROUND_REQUESTS_MAX, BACKGROUND_REQUESTS_MAX * 3 // 4)
    assert (got[:28], got[36:]) == (answer(flags)[:28], rest)


@pytest.mark.parametrize(
    ("asked", "said"),
    [
        (request(OURS, opcode=1), answer(0)),
        (request(OURS), answer(0, error=-71)),
        (b"short", answer(0)),
        (request(OURS), b"short"),
    ],
)
def test_any_other_answer_stays(asked, said):
    assert wanted(asked, said) == said


def test_the_device_is_back_when_hands_are_shaken():
    kernel, device = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    with kernel, device:
        session = device.fileno()
        before = os.fstat(session).st_ino
        kernel.send(request(OURS))
        handshake = Handshake()
        handshake.begin(session)
        assert os.read(session, 1000) == request(OURS)  # libfuse's turn
        os.write(session, answer(0))
        handshake.end(session)
        assert kernel.recv(1000) == wanted(request(OURS), answer(0))
        assert os.fstat(session).st_ino == before
        assert not os.get_inheritable(session)


def test_without_an_answer_the_mount_ends():
    kernel, device = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    with kernel, device:
        kernel.send(request(OURS))
        handshake = Handshake()
        handshake.begin(device.fileno())
        with pytest.raises(BlockingIOError):
            handshake.end(device.fileno())
