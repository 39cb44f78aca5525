"""Before a mount or a recovery: may this machine write the file system, or does somebody else? ADR 0119, 0120.

It runs in the process of the command and asks each location for a few small objects. When a majority is silent it lets
the mount begin: what they would have said is found out as soon as they answer, and the fence goes up then.
"""

from __future__ import annotations

from contextlib import suppress
from datetime import UTC, datetime

import trio

from qss.app.exits import ungrouped
from qss.app.identity import check_key, read_identity
from qss.app.locations import open_nodes
from qss.app.offload import make_roots
from qss.app.running import is_locked
from qss.app.seat import hold_of
from qss.config import Settings
from qss.errors import Refused, Unreachable
from qss.formats.root import Root
from qss.host import Host
from qss.offload.fence import Fence
from qss.offload.history import History, refusal
from qss.offload.hold import Hold, HoldBook
from qss.offload.keys import FsKeys
from qss.offload.nodes import Nodes
from qss.offload.roots import Roots

LOOK_S_MAX = 10.0
"""How long the locations may take before a mount begins without their word."""


def admit(settings: Settings, *, take_over: bool = False, accept_rollback: bool = False) -> str:
    """Before a mount. Empty: this machine writes. Else why it may only read, or what could not be found out.

    Raises Refused: another machine holds it, or the locations tell another story; Unreachable when the user asks for a
    decision that needs a majority of locations.
    """
    identity = read_identity(settings.state)
    if is_locked(settings.state) or (identity is not None and identity.snapshot):
        return ""  # the mount process says what is to be said
    keys = FsKeys.derive(check_key(settings))
    with ungrouped():
        return trio.run(_admit, settings, keys, take_over, accept_rollback)


async def _admit(settings: Settings, keys: FsKeys, take_over: bool, accept_rollback: bool) -> str:
    host, fence = Host(), Fence(settings.offload_dir)
    insists = take_over or accept_rollback
    async with open_nodes(settings, host) as nodes:
        roots = make_roots(settings, keys, nodes, host)
        holds = HoldBook(nodes, keys, host)
        found = await _look(roots)
        if found is None:
            if insists:
                raise Unreachable("most locations do not answer, and who writes this file system is theirs to say")
            return fence.reason or "most locations do not answer: whether another machine writes is found out later"
        newest, history = found
        trouble = refusal(history, roots.known, newest)
        if trouble is not None and history is History.OVERTAKEN:
            fence.put_up(await _overtaken(holds, newest, str(trouble)))
            if insists:
                raise Refused(
                    f"{fence.reason}; to write here again, export what was not offloaded and run qssctl recover"
                    " --take-over into an empty state directory"
                )
            return fence.reason
        if trouble is not None and not accept_rollback:
            raise trouble
        if trouble is not None:
            roots.insist(newest)
        there = await holds.read()
        if await _is_free(holds, there, roots, hold_of(settings, roots.known, host), take_over=take_over):
            if fence.up and not insists:
                return fence.reason
            if take_over and there is not None:
                roots.raise_epoch(there.epoch)
            fence.lower()
            ours = hold_of(settings, roots.known, host)
            image = there is not None and there.seat == ours.seat and not ours.follows(there)
            if not (take_over or image):  # else the offload process waits until the other one cannot have a lease
                await holds.write(ours)
            return ""
        assert there is not None
        raise Refused(held_by(there, newest, "mount --take-over"))


async def _look(roots: Roots) -> tuple[Root | None, History] | None:
    """None: most locations do not answer in time."""
    with trio.move_on_after(LOOK_S_MAX), suppress(Unreachable):
        return await roots.look()
    return None


async def _is_free(holds: HoldBook, there: Hold | None, roots: Roots, ours: Hold, *, take_over: bool) -> bool:
    """Whether nobody else lives who holds it; then what a dead one held is void. One seat is not waited for here: it
    is this machine before a crash, or an image of it, and the offload process finds out which."""
    if there is None or there.seat == ours.seat:
        return True
    if not take_over and await holds.is_alive(there) is not None:
        return False
    if there.epoch >= roots.known.next_epoch:
        roots.raise_epoch(there.epoch)
    return True


async def _overtaken(holds: HoldBook, newest: Root | None, otherwise: str) -> str:
    there = await holds.read()
    if there is None or newest is None or there.writer != newest.writer.hex():
        return otherwise
    return f"{there.host} ({there.state}, writer {there.writer[:8]}) has written root {newest.generation}: {otherwise}"


def held_by(hold: Hold, newest: Root | None, way_out: str) -> str:
    """For people: who holds the file system."""
    root = f"; its last root is {newest.generation} of {_utc(newest.created_ns)}" if newest else "; it has no root yet"
    return (
        f"{hold.host} holds this file system (writer {hold.writer[:8]}, {hold.state}), seen alive at"
        f" {_utc(hold.beat_ns)}{root}: unmount it there, or take it over with {way_out}"
    )


def _utc(ns: int) -> str:
    return datetime.fromtimestamp(ns / 1e9, UTC).strftime("%Y-%m-%d %H:%M:%S UTC")


async def refuse_unless_ours(settings: Settings, keys: FsKeys, nodes: Nodes, host: Host) -> None:
    """Before a command puts shards by itself. Raises Refused when another machine holds the file system or has taken
    it over."""
    fence, holds = Fence(settings.offload_dir), HoldBook(nodes, keys, host)
    if fence.up:
        raise Refused(fence.reason)
    roots = make_roots(settings, keys, nodes, host)
    found = await _look(roots)
    trouble = refusal(found[1], roots.known, found[0]) if found is not None else None
    if trouble is not None:
        raise trouble
    there = await holds.read()
    if there is not None and not hold_of(settings, roots.known, host).follows(there):
        await refuse_if_held(holds, found[0] if found is not None else None)


async def refuse_if_held(holds: HoldBook, newest: Root | None) -> None:
    """Before a recovery. Raises Refused when a machine lives that holds the file system."""
    there = await holds.read()
    alive = await holds.is_alive(there) if there is not None else None
    if alive is not None:
        raise Refused(held_by(alive, newest, "recover --take-over"))
