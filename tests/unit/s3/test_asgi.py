"""What the bridge asks of an ASGI server, without one."""

from __future__ import annotations

import asyncio

import pytest

from qss.s3.asgi import asgi_app


class Sender:
    """Hands a body over in pieces; like Granian it does not know that one is the last."""

    def __init__(self, *pieces: bytes) -> None:
        self._pieces = list(pieces)
        self.asked = 0
        self.answer: list[dict[str, object]] = []

    async def receive(self) -> dict[str, object]:
        self.asked += 1
        more = bool(self._pieces)
        return {"type": "http.request", "body": self._pieces.pop(0) if more else b"", "more_body": more}

    async def send(self, message) -> None:
        self.answer.append(message)


def taken(sender: Sender, headers: list[tuple[bytes, bytes]], *, whole: bool) -> bytes:
    """The body that an application gets."""
    seen: list[bytes] = []

    async def app(_, protocol) -> None:
        seen.extend([await protocol()] if whole else [piece async for piece in protocol])
        protocol.response_empty(200, [])

    scope = {
        "type": "http", "http_version": "1.1", "method": "PUT", "scheme": "http", "raw_path": b"/a",
        "query_string": b"", "client": ("127.0.0.1", 1), "headers": [(b"host", b"a"), *headers],
    }  # fmt: skip
    asyncio.run(asgi_app(app)(scope, sender.receive, sender.send))
    return b"".join(seen)


@pytest.mark.parametrize("whole", [True, False])
@pytest.mark.parametrize("pieces", [(b"abcd",), (b"ab", b"cd")])
def test_a_body_ends_with_its_last_byte(pieces, whole) -> None:
    sender = Sender(*pieces)
    assert taken(sender, [(b"content-length", b"4")], whole=whole) == b"abcd"
    assert sender.asked == len(pieces)
    assert (b"connection", b"close") not in sender.answer[0]["headers"]


@pytest.mark.parametrize("whole", [True, False])
def test_a_body_without_a_length_ends_where_the_server_says(whole) -> None:
    sender = Sender(b"ab", b"cd")
    assert taken(sender, [(b"transfer-encoding", b"chunked")], whole=whole) == b"abcd"
    assert sender.asked == 3


@pytest.mark.parametrize("whole", [True, False])
def test_a_body_that_is_cut_short_ends_where_the_server_says(whole) -> None:
    sender = Sender(b"ab")
    assert taken(sender, [(b"content-length", b"4")], whole=whole) == b"ab"
    assert sender.asked == 2
