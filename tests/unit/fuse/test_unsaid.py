from __future__ import annotations

import os
import struct

import pyfuse3
import pytest

from qss.fuse.unsaid import FUSE_WRITE, Unsaid, _buffer_of, asked


def request(opcode=FUSE_WRITE, handle=7, offset=4096, size=10, flags=os.O_WRONLY):
    head = struct.pack("<IIQQIIIHH", 80 + size, opcode, 99, 3, 0, 0, 1, 0, 0)
    return head + struct.pack("<QQIIQII", handle, offset, size, 4, 12345, flags, 0)


def test_the_flags_of_a_write_stand_in_its_request():
    assert asked(request(flags=os.O_WRONLY | os.O_DSYNC) + b"content", 7, 4096, 10) == os.O_WRONLY | os.O_DSYNC
    assert asked(request(), 7, 4096, 10) == os.O_WRONLY


@pytest.mark.parametrize("other", [{"opcode": 15}, {"handle": 8}, {"offset": 0}, {"size": 11}])
def test_another_request_says_nothing_about_this_write(other):
    assert asked(request(**other), 7, 4096, 10) is None
    assert asked(request()[:60], 7, 4096, 10) is None


def test_a_task_that_has_no_requests_knows_nothing_and_syncs():
    unsaid = Unsaid()
    assert not unsaid.known
    assert unsaid.wants_sync(1, 0, 1)


def test_pyfuse3_keeps_its_requests_where_we_look():
    loop = pyfuse3._session_loop.__wrapped__(None, 1, 2)
    assert _buffer_of(loop)
    loop.close()


def test_where_it_does_not_nothing_is_known(caplog):
    async def loop():
        """Somebody else's."""

    other = loop()
    assert _buffer_of(other) == 0
    assert "through the kernel's memory" in caplog.text
    other.close()
