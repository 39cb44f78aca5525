"""Admin routes of the scrub and of what is damaged."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import islice
from typing import Any, Final

from qss.s3.errors import Code, S3Error
from qss.trove.node import DAMAGE_LISTED_MAX, Node
from qss.trove.routes import Answer, Asked, Route, answer, body_of

_WORDS: Final = {"type": "string", "enum": ["start", "stop"]}


class UpkeepRoutes:
    """What an operator asks and says about the state of the bytes."""

    def __init__(self, node: Node) -> None:
        self._node = node

    @property
    def routes(self) -> Sequence[Route]:
        return [
            Route("GET", "/scrub", "How far the scrub is, and what it has found in this round", self._scrub),
            Route(
                "POST",
                "/scrub",
                "start: a round begins now or goes on; stop: none until start, which goes on where it was",
                self._change,
                takes=body_of({"do": _WORDS}, "do"),
            ),
            Route(
                "GET",
                "/damaged",
                f"Quarantined records in the order of the disk, {DAMAGE_LISTED_MAX} at a time",
                self._damaged,
                query={"after": "`next` of the page before"},
            ),
        ]

    async def _scrub(self, _: Asked) -> Answer:
        return answer(self._node.scrubber.status())

    async def _change(self, asked: Asked) -> Answer:
        if asked.body["do"] == "start":
            await self._node.scrubber.start()
        else:
            await self._node.scrubber.stop()
        return answer(self._node.scrubber.status())

    async def _damaged(self, asked: Asked) -> Answer:
        volume, position = _after(asked.query.get("after", ""))
        self._node.store.records.flush_damage()
        with self._node.engine.index.read() as tables:
            total = tables.damage_count()
            found: list[dict[str, Any]] = list(islice(tables.damage(volume, position), DAMAGE_LISTED_MAX + 1))
        more = len(found) > DAMAGE_LISTED_MAX
        found = found[:DAMAGE_LISTED_MAX]
        next_after = f"{found[-1]['volume']}-{found[-1]['position']}" if more else None
        return answer({"records": total, "damaged": found, "next": next_after})


def _after(text: str) -> tuple[int, int]:
    """(volume, position) from which to list. Raises S3Error."""
    if not text:
        return 0, 0
    volume, _, position = text.partition("-")
    if not (volume.isdecimal() and position.isdecimal() and int(volume) < 2**32 and int(position) < 2**63):
        raise S3Error(Code.INVALID_ARGUMENT, "after: give the `next` of the page before")
    return int(volume), int(position) + 1
