"""A body is let go with the answer. Granian closes a connection whose body was not read once nobody holds that body:
with the garbage collector for the last holder it would stay open for as long as the server has little to do."""

from __future__ import annotations

import asyncio
import gc
import weakref
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager

from qss.s3.asgi import BodyTooSlow
from qss.s3.message import RequestHead, Response
from qss.trove.files import answered
from tests.harness.s3_direct import Direct


class Slow:
    """A body whose client lets us wait for too long."""

    def __aiter__(self) -> Slow:
        return self

    async def __anext__(self) -> bytes:
        await asyncio.sleep(0)
        raise BodyTooSlow


@contextmanager
def uncollected() -> Iterator[None]:
    gc.collect()
    gc.disable()
    try:
        yield
    finally:
        gc.enable()


def is_let_go(ask: Callable[[Slow], Awaitable[Response]]) -> bool:
    async def asked() -> weakref.ref[Slow]:
        body = Slow()
        response = await ask(body)
        assert response.status == 400
        return weakref.ref(body)

    with uncollected():
        return asyncio.run(asked())() is None


def test_by_the_s3_api() -> None:
    direct = Direct()
    direct.bucket("bucket")
    head = direct.signed("root", "PUT", "/bucket/key", b"announced")
    assert is_let_go(lambda body: direct.service.handle(head, body))


def test_by_the_file_api() -> None:
    async def take(body: Slow) -> Response:
        async for _ in body:
            raise AssertionError
        raise AssertionError

    head = RequestHead("PUT", "/bucket/key", "", {"host": "a"}, secure=False)
    assert is_let_go(lambda body: answered(take(body), head))
