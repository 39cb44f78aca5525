"""What can be set about the cache. Frozen; qss.config makes it from TOML."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Self

from qss.limits import GIB, JOURNAL_BYTES_DEFAULT, MIB, SEGMENT_BYTES_DEFAULT


@dataclass(frozen=True, slots=True)
class PathPolicy:
    """Limits for what is below one path, in place of the general ones. The nearest policy above a file holds for it."""

    path: str  # from the root of the file system, "/" first
    age_s_max: float | None = None  # None: no limit
    size_bytes_max: int | None = None  # of local copies that hold nothing else; None: no limit


@dataclass(frozen=True, slots=True)
class RetentionOptions:
    """When local copies of safe segments are evicted."""

    size_bytes_max: int = 10 * GIB
    age_s_max: float | None = None  # since last use; None: no limit
    free_bytes_min: int = 1 * GIB  # free space of the disk kept for others
    missing_max: int = 0  # shards that may still be missing when a local copy goes
    paths: tuple[PathPolicy, ...] = ()

    @classmethod
    def of_json(cls, values: Mapping[str, Any]) -> Self:
        """What `dataclasses.asdict` and JSON made of one. Raises TypeError for anything else."""
        paths = values.get("paths", ())
        if not isinstance(paths, list | tuple):
            raise TypeError("paths of a retention must be a list")
        return cls(**{**values, "paths": tuple(PathPolicy(**each) for each in paths)})


@dataclass(frozen=True, slots=True)
class CacheOptions:
    segment_bytes: int = SEGMENT_BYTES_DEFAULT
    journal_bytes: int = JOURNAL_BYTES_DEFAULT
    seal_after_s: float = 30.0  # a dirty log is cut after this long
    seal_bytes: int = 1 * GIB  # and after so much content, so that no more than this lies behind the newest root
    checkpoint_every_s: float = 5.0
    checkpoint_changes_max: int = 50_000  # rows changed, whichever comes first
    trim_after_bytes: int = 32 * MIB  # of journal behind the last journal checkpoint, and as many as that one is large
    index_map_bytes: int = 64 * GIB  # address space, not memory
    fetch_deadline_s: float = 60.0  # a read miss gets EIO after this long
    safe_missing_max: int = 0  # shards that may still be missing when a root names a segment
    free_bytes_soft: int = 256 * MIB  # writers are slowed below
    free_bytes_hard: int = 64 * MIB  # writers get ENOSPC below; deletes and metadata go on
    compact_bytes_per_s: int = 32 * MIB  # moved by compaction, at most; 0: never
    compact_waste: float = 0.2  # share of dead bytes in sealed segments that is left alone
    compact_waste_bytes_min: int = 16 * MIB  # and so many in any case
    admit_deadline_s: float = 30.0  # a writer waits this long for space before ENOSPC
    history_s: float = 0.0  # shards of dead segments are kept for so long: of [offload] history
    retention: RetentionOptions = RetentionOptions()
