"""What repair must remember over a restart: since when locations are down, damage found and not yet repaired, locations
to be swept, how far the scrub is. One small file of JSON, replaced whole and synced (docs/repair.md).

Everything else is a query. A book that is lost or does not hold is begun anew: the scrub finds damage again, and a
location's time of grace starts again.
"""

from __future__ import annotations

import json
import logging
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

from qss.errors import CorruptData
from qss.ids import SEGMENT_ID_NONE, LocationId, SegmentId, ShardNo
from qss.offload.damage import DamagedShard
from qss.offload.files import replace_file

VERSION: Final = 1
_log = logging.getLogger(__name__)


@dataclass(slots=True)
class ScrubMark:
    """How far the scrub is. Times: wall clock, ns."""

    round: int = 0  # complete rounds behind us
    after: SegmentId = SEGMENT_ID_NONE  # every stored segment up to here is done in this round
    started_ns: int = 0  # of this round; 0: none is under way
    ended_ns: int = 0  # of the round before
    stopped: bool = False  # by the user
    shards: int = 0  # looked at in this round
    found: int = 0  # of them not sound
    bytes: int = 0  # verified in this round
    unseen: int = 0  # their location did not answer


@dataclass(slots=True)
class RepairFacts:
    down_since_ns: dict[LocationId, int] = field(default_factory=dict)
    damaged: dict[DamagedShard, str] = field(default_factory=dict)
    sweep: set[LocationId] = field(default_factory=set)  # were given up, and may hold shards that live elsewhere now
    known: set[LocationId] = field(default_factory=set)  # ever configured, and perhaps still named by a manifest
    scrub: ScrubMark = field(default_factory=ScrubMark)

    def pack(self) -> bytes:
        scrub = {name: getattr(self.scrub, name) for name in ScrubMark.__slots__}
        return json.dumps(
            {
                "version": VERSION,
                "down_since_ns": self.down_since_ns,
                "damaged": [[one.segment, one.shard, one.location, why] for one, why in sorted(self.damaged.items())],
                "sweep": sorted(self.sweep),
                "known": sorted(self.known),
                "scrub": scrub,
            }
        ).encode()

    @classmethod
    def unpack(cls, untrusted: bytes) -> RepairFacts:
        """Raises CorruptData."""
        try:
            value: dict[str, Any] = json.loads(untrusted)
            if value["version"] != VERSION:
                raise CorruptData("the book of repairs is of a version not known to this program")
            damaged = {
                DamagedShard(SegmentId(int(segment)), ShardNo(int(shard)), LocationId(str(location))): str(why)
                for segment, shard, location, why in value["damaged"]
            }
            down = {LocationId(str(name)): int(since) for name, since in value["down_since_ns"].items()}
            kinds = {name: type(getattr(ScrubMark(), name)) for name in ScrubMark.__slots__}
            scrub = ScrubMark(**{name: kinds[name](each) for name, each in value["scrub"].items()})
            sweep, known = ({LocationId(str(name)) for name in value[which]} for which in ("sweep", "known"))
            return cls(down, damaged, sweep, known, scrub)
        except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
            raise CorruptData(f"the book of repairs does not hold: {error!r}") from error


class RepairBook:
    """`path`: a file of this machine, e.g. state/offload/repair.json."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._written = b""
        self.facts = RepairFacts()
        try:
            self._written = path.read_bytes()
            self.facts = RepairFacts.unpack(self._written)
        except FileNotFoundError:
            pass
        except CorruptData as error:
            _log.warning("%s; it is begun anew", error)

    def save(self) -> None:
        """Durable on return. Nothing is written when nothing has changed. Raises OSError."""
        data = self.facts.pack()
        if data != self._written:
            replace_file(self._path, data, sync=True)
            self._written = data
