import socket

import pytest
import trio

from qss.control.client import ControlClient
from qss.control.messages import RemoteBug
from qss.control.server import Calls, serve
from qss.errors import Busy, ConfigInvalid, Unreachable


class World:
    def __init__(self):
        self.started = trio.Event()
        self.cancelled = trio.Event()

    async def echo(self, call):
        return call.params

    async def count(self, call):
        for number in range(call.params["upto"]):
            await call.progress({"at": number})
        return "done"

    async def forever(self, call):
        self.started.set()
        try:
            await trio.sleep_forever()
        finally:
            self.cancelled.set()

    async def refuse(self, call):
        raise ConfigInvalid("write it otherwise")

    async def busy(self, call):
        raise Busy("later", retry_after_s=1.0)

    async def bug(self, call):
        raise ZeroDivisionError

    @property
    def methods(self):
        names = ("echo", "count", "forever", "refuse", "busy", "bug")
        return {name: getattr(self, name) for name in names}


@pytest.fixture
def world():
    return World()


@pytest.fixture
async def path(world, tmp_path, nursery):
    path = tmp_path / ("long" * 40) / "test.sock"  # longer than sun_path
    await nursery.start(serve, path, world.methods)
    return path


async def test_call_and_progress(path):
    async with ControlClient(path) as client:
        assert await client.call("echo", a=1, b=["x"]) == {"a": 1, "b": ["x"]}
        seen = []
        assert await client.call("count", upto=3, on_progress=seen.append) == "done"
        assert seen == [{"at": 0}, {"at": 1}, {"at": 2}]


async def test_socket_is_private(path):
    assert path.stat().st_mode & 0o777 == 0o600
    assert path.parent.stat().st_mode & 0o777 == 0o700


async def test_errors_keep_their_class(path):
    async with ControlClient(path) as client:
        with pytest.raises(ConfigInvalid, match="write it otherwise"):
            await client.call("refuse")
        with pytest.raises(Busy) as caught:
            await client.call("busy")
        assert caught.value.retry_after_s == 1.0
        for method, params in (("bug", {}), ("missing", {}), ("count", {})):
            with pytest.raises(RemoteBug):
                await client.call(method, **params)
        assert await client.call("echo") == {}


async def test_a_cancelled_call_is_cancelled_at_the_server(world, path):
    async with ControlClient(path) as client, trio.open_nursery() as nursery:
        nursery.start_soon(client.call, "forever")
        await world.started.wait()
        nursery.cancel_scope.cancel()
    with trio.fail_after(5):
        await world.cancelled.wait()


async def test_calls_run_side_by_side(world, path):
    async with ControlClient(path) as client, trio.open_nursery() as nursery:
        nursery.start_soon(client.call, "forever")
        await world.started.wait()
        assert await client.call("echo", x=1) == {"x": 1}
        nursery.cancel_scope.cancel()


async def test_calls_under_way_are_counted_until_they_are_answered(world, tmp_path, nursery):
    calls = Calls()
    await nursery.start(serve, tmp_path / "c.sock", world.methods, calls)
    await calls.none_left()
    async with ControlClient(tmp_path / "c.sock") as client, trio.open_nursery() as callers:
        callers.start_soon(client.call, "forever")
        await world.started.wait()
        with trio.move_on_after(0) as scope:
            await calls.none_left()
        assert scope.cancelled_caught
        callers.cancel_scope.cancel()
    with trio.fail_after(5):
        await calls.none_left()


async def test_nobody_there(tmp_path):
    with pytest.raises(Unreachable):
        await ControlClient(tmp_path / "no.sock").call("echo")
    with pytest.raises(Unreachable):
        await ControlClient(tmp_path / "no" / "no.sock").call("echo")


async def test_a_dead_kept_connection_is_replaced(world, tmp_path):
    path = tmp_path / "run" / "a.sock"
    client = ControlClient(path)
    for _ in range(2):
        async with trio.open_nursery() as nursery:
            await nursery.start(serve, path, world.methods)
            assert await client.call("echo", x=1) == {"x": 1}
            nursery.cancel_scope.cancel()
    with pytest.raises(Unreachable):
        await client.call("echo")
    assert not path.exists()


async def test_one_that_ends_late_leaves_the_socket_of_its_successor_alone(world, tmp_path, nursery):
    path, ended = tmp_path / "run" / "a.sock", trio.Event()
    former = trio.CancelScope()

    async def first(*, task_status):
        with former:
            await serve(path, {}, task_status=task_status)
        ended.set()

    await nursery.start(first)
    await nursery.start(serve, path, world.methods)
    former.cancel()
    await ended.wait()
    async with ControlClient(path) as client:
        assert await client.call("echo", x=1) == {"x": 1}


async def test_garbage_ends_its_own_connection_only(path):
    async with ControlClient(path) as client:
        assert await client.call("echo") == {}
        stream = trio.SocketStream(trio.socket.socket(socket.AF_UNIX))
        import os

        folder = os.open(path.parent, os.O_PATH)
        await stream.socket.connect(f"/proc/self/fd/{folder}/{path.name}")
        os.close(folder)
        await stream.send_all(b"GET / HTTP/1.1\r\n\r\n")
        assert await stream.receive_some() == b""
        assert await client.call("echo") == {}
