"""What the index keeps beside its transactions: handles of its databases, and what is counted."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from qss.trove.rows import VolumeRow


@dataclass(frozen=True, slots=True)
class Databases:
    """Handles of the named databases."""

    state: Any
    buckets: Any
    keys: Any
    uploads: Any
    parts: Any
    owners: Any
    amends: Any
    graves: Any
    volumes: Any
    damage: Any
    versions: Any  # what keys have besides their newest version if that is an object (qss.trove.keyversions)
    documents: Any  # tenant, bucket/name → the bucket's document of that name


@dataclass(slots=True)
class Totals:
    """What is counted. Lives beside the database and is written with each transaction."""

    objects: int = 0
    object_bytes: int = 0
    next_node: int = 1
    newest: int = 0  # highest version seen; the clock may go back
    volumes: dict[int, VolumeRow] = field(default_factory=dict)
    dirty: set[int] = field(default_factory=set)
    usage: dict[int, tuple[int, int]] = field(default_factory=dict)  # bucket number: objects, bytes
    used: set[int] = field(default_factory=set)  # whose usage has changed
    settings: int = 0  # moves with every change of a bucket or a document: what was read before is out of date
    # What saves look-ups while a record is committed; made anew, as all of this, when a transaction is undone.
    amends: bool | None = None  # whether there are amendments, as far as is known; True may be out of date
    graves: bool | None = None  # the same of graves
    older: dict[int, bool] = field(default_factory=dict)  # bucket number: the same of rows in its `older_tree`
    numbers: dict[tuple[int, bytes], int] = field(default_factory=dict)  # tenant and bucket: its number
