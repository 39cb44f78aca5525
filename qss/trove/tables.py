"""The tables of a node's index inside one transaction: what a record says is looked up and changed here.

Which transaction, and whether what it says can be trusted after a power cut, is qss.trove.index's.
"""

from __future__ import annotations

import json
import struct
from collections.abc import Iterator
from itertools import takewhile
from typing import Any, Final

from qss.trove.counted import Databases, Totals
from qss.trove.keytree import KeyTree
from qss.trove.rows import (
    NamedRow,
    Place,
    VolumeRow,
    decode_named,
    decode_u64,
    decode_volume,
    encode_u64,
    number_of,
)

KEPT_MAX: Final = 10_000  # buckets of which something is kept in memory

_STATE: Final = struct.Struct("<QQQQ")
_BUCKET: Final = struct.Struct(">I")
_VOLUME_KEY: Final = struct.Struct(">I")
_PLACE_KEY: Final = struct.Struct(">IQ")
_USAGE_KEY: Final = struct.Struct(">6sQ")
_USAGE: Final = struct.Struct("<QQ")


class Tables:
    """The tables inside one transaction; valid until it ends."""

    def __init__(self, txn: Any, dbs: Databases, totals: Totals) -> None:
        self._txn = txn
        self.dbs = dbs
        self._totals = totals

    # -- rows by key --------------------------------------------------------------------------------------------

    def get(self, db: Any, key: bytes) -> bytes | None:
        value: bytes | None = self._txn.get(key, db=db)
        return value

    def put(self, db: Any, key: bytes, value: bytes) -> None:
        self._txn.put(key, value, db=db)

    def delete(self, db: Any, key: bytes) -> None:
        self._txn.delete(key, db=db)

    def scan(self, db: Any, start: bytes = b"") -> Iterator[tuple[bytes, bytes]]:
        """(key, value) from the first key >= start."""
        cursor = self._txn.cursor(db=db)
        if cursor.set_range(start):
            yield from cursor.iternext()

    def is_empty(self, db: Any) -> bool:
        return not self._txn.stat(db)["entries"]

    # -- buckets and keys -----------------------------------------------------------------------------------------

    def new_node(self) -> int:
        node = self._totals.next_node
        self._totals.next_node += 1
        return node

    def tree(self, root: int) -> KeyTree:
        return KeyTree(self._txn, self.dbs.keys, root, self.new_node)

    def older_tree(self, root: int) -> KeyTree:
        """The tree of a bucket's other versions."""
        return KeyTree(self._txn, self.dbs.versions, root, self.new_node)

    def has_older(self, root: int) -> bool:
        """Whether a bucket may have rows in `older_tree`: looked up once, for those that never had any."""
        found = self._totals.older.get(root)
        if found is None:
            found = not self.is_empty(self.dbs.versions) and next(self.older_tree(root).scan(), None) is not None
            if len(self._totals.older) >= KEPT_MAX:
                self._totals.older.clear()
            self._totals.older[root] = found
        return found

    def will_have_older(self, root: int) -> None:
        """Call before the first row is put into `older_tree`."""
        self._totals.older[root] = True

    def is_bare(self, root: int) -> bool:
        """Whether a bucket has no object, no version and no delete marker."""
        return next(self.tree(root).scan(), None) is None and next(self.older_tree(root).scan(), None) is None

    def bucket_row(self, tenant: int, name: bytes) -> bytes | None:
        """As `bucket`, undecoded. What is made of it holds as long as `Index.settings` stands still."""
        value: bytes | None = self._txn.get(_BUCKET.pack(tenant) + name, db=self.dbs.buckets)
        return value

    def document(self, tenant: int, key: bytes) -> NamedRow | None:
        """The document `bucket/name`; `meta` is its content."""
        data = self._txn.get(_BUCKET.pack(tenant) + key, db=self.dbs.documents)
        return None if data is None else decode_named(data)

    def set_document(self, tenant: int, key: bytes, row: NamedRow | None) -> None:
        self._totals.settings += 1
        if row is None:
            self._txn.delete(_BUCKET.pack(tenant) + key, db=self.dbs.documents)
        else:
            self._txn.put(_BUCKET.pack(tenant) + key, row.encode(), db=self.dbs.documents)

    def documents(self, tenant: int, bucket: bytes) -> Iterator[tuple[bytes, NamedRow]]:
        """Names and rows of a bucket's documents."""
        prefix = _BUCKET.pack(tenant) + bucket + b"/"
        for key, value in self.scan(self.dbs.documents, prefix):
            if not key.startswith(prefix):
                return
            yield key[len(prefix) :], decode_named(value)

    def bucket(self, tenant: int, name: bytes) -> NamedRow | None:
        data = self.bucket_row(tenant, name)
        return None if data is None else decode_named(data)

    def bucket_id(self, tenant: int, name: bytes) -> int | None:
        numbers, which = self._totals.numbers, (tenant, name)
        found = numbers.get(which)
        if found is None:
            data = self.bucket_row(tenant, name)
            if data is None:
                return None
            if len(numbers) >= KEPT_MAX:
                numbers.clear()
            found = numbers[which] = number_of(data)
        return found

    def set_bucket(self, tenant: int, name: bytes, row: NamedRow | None) -> None:
        self._totals.settings += 1
        self._totals.numbers.pop((tenant, name), None)
        key = _BUCKET.pack(tenant) + name
        if row is None:
            self._txn.delete(key, db=self.dbs.buckets)
        else:
            self._txn.put(key, row.encode(), db=self.dbs.buckets)

    def buckets(self, tenant: int) -> Iterator[tuple[bytes, NamedRow]]:
        prefix = _BUCKET.pack(tenant)
        for key, value in self.scan(self.dbs.buckets, prefix):
            if key[:4] != prefix:
                return
            yield key[4:], decode_named(value)

    # -- composites: which parts an object is made of, and which upload its record belongs to ---------------------

    def composite(self, upload: bytes) -> frozenset[int] | None:
        data = self._txn.get(b"u" + upload, db=self.dbs.owners)
        return None if data is None else frozenset(struct.unpack(f">{len(data) // 4}I", data))

    def set_composite(self, upload: bytes, numbers: list[int] | None, place: Place) -> None:
        at = b"p" + _PLACE_KEY.pack(place.volume, place.position)
        if numbers is None:
            self._txn.delete(b"u" + upload, db=self.dbs.owners)
            self._txn.delete(at, db=self.dbs.owners)
        else:
            self._txn.put(b"u" + upload, struct.pack(f">{len(numbers)}I", *numbers), db=self.dbs.owners)
            self._txn.put(at, upload, db=self.dbs.owners)

    def owner_of(self, place: Place) -> bytes | None:
        value: bytes | None = self._txn.get(b"p" + _PLACE_KEY.pack(place.volume, place.position), db=self.dbs.owners)
        return value

    def move_owner(self, old: Place, new: Place) -> None:
        upload = self.owner_of(old)
        if upload is not None and old != new:
            self._txn.delete(b"p" + _PLACE_KEY.pack(old.volume, old.position), db=self.dbs.owners)
            self._txn.put(b"p" + _PLACE_KEY.pack(new.volume, new.position), upload, db=self.dbs.owners)

    # -- graves and amendments --------------------------------------------------------------------------------------

    def grave(self, key: bytes) -> int:
        if self._totals.graves is None:
            self._totals.graves = not self.is_empty(self.dbs.graves)
        if not self._totals.graves:
            return 0
        data = self._txn.get(key, db=self.dbs.graves)
        return 0 if data is None else decode_u64(data)

    def set_grave(self, key: bytes, version: int) -> None:
        if version > self.grave(key):
            self._totals.graves = True
            self._txn.put(key, encode_u64(version), db=self.dbs.graves)

    def prune_graves(self, below: int) -> None:
        """Forget deletions older than every record that a replay could still bring."""
        old = [key for key, value in self.scan(self.dbs.graves) if decode_u64(value) < below]
        for key in old:
            self._txn.delete(key, db=self.dbs.graves)
        self._totals.graves = None

    def amend(self, key: bytes) -> NamedRow | None:
        data = self._txn.get(key, db=self.dbs.amends)
        return None if data is None else decode_named(data)

    def no_amends(self) -> bool:
        """Whether nothing at all is amended."""
        if self._totals.amends is None:
            self._totals.amends = not self.is_empty(self.dbs.amends)
        return not self._totals.amends

    def set_amend(self, key: bytes, row: NamedRow | None) -> None:
        if row is not None:
            self._totals.amends = True
            self._txn.put(key, row.encode(), db=self.dbs.amends)
            return
        old = self.amend(key)
        if old is not None:
            self.live(old.place, -1)
            self._txn.delete(key, db=self.dbs.amends)

    # -- counting -----------------------------------------------------------------------------------------------------

    def count(self, bucket: int, objects: int, size: int) -> None:
        self._totals.objects += objects
        self._totals.object_bytes += size
        have, held = self._totals.usage.get(bucket, (0, 0))
        self._totals.usage[bucket] = have + objects, held + size
        self._totals.used.add(bucket)

    def usage(self, bucket: int) -> tuple[int, int]:
        """Objects and bytes of a bucket, by its number."""
        return self._totals.usage.get(bucket, (0, 0))

    def live(self, place: Place, sign: int) -> None:
        if not place.length or (sign < 0 and place.volume not in self._totals.volumes):  # a volume given up
            return
        row = self._totals.volumes.get(place.volume, VolumeRow(0))
        self._set(place.volume, VolumeRow(row.low, row.live + sign * place.length, row.oldest))

    def saw(self, volume: int, version: int) -> None:
        self._totals.newest = max(self._totals.newest, version)
        row = self._totals.volumes.get(volume, VolumeRow(0))
        if version < row.oldest:
            self._set(volume, VolumeRow(row.low, row.live, version))

    def set_low(self, volume: int, low: int) -> None:
        row = self._totals.volumes.get(volume, VolumeRow(0))
        if low > row.low:
            self._set(volume, VolumeRow(low, row.live, row.oldest))

    def forget_volume(self, volume: int) -> None:
        self._totals.volumes.pop(volume, None)
        self._totals.dirty.discard(volume)
        self._txn.delete(_VOLUME_KEY.pack(volume), db=self.dbs.volumes)
        for note in list(takewhile(lambda note: note["volume"] == volume, self.damage(volume))):
            self.clear_damage(volume, note["position"])

    def _set(self, volume: int, row: VolumeRow) -> None:
        self._totals.volumes[volume] = row
        self._totals.dirty.add(volume)

    def flush(self) -> None:
        """Write what is counted. Called once, at the end of a writing transaction."""
        totals = self._totals
        for volume in totals.dirty:
            self._txn.put(_VOLUME_KEY.pack(volume), totals.volumes[volume].encode(), db=self.dbs.volumes)
        totals.dirty.clear()
        for bucket in totals.used:
            key = _USAGE_KEY.pack(b"bucket", bucket)
            if totals.usage[bucket] == (0, 0):
                del totals.usage[bucket]
                self._txn.delete(key, db=self.dbs.state)
            else:
                self._txn.put(key, _USAGE.pack(*totals.usage[bucket]), db=self.dbs.state)
        totals.used.clear()
        state = _STATE.pack(totals.next_node, totals.objects, totals.object_bytes, totals.newest)
        self._txn.put(b"totals", state, db=self.dbs.state)

    # -- damage -----------------------------------------------------------------------------------------------------

    def add_damage(self, volume: int, position: int, what: dict[str, Any]) -> None:
        self._txn.put(_PLACE_KEY.pack(volume, position), json.dumps(what).encode(), db=self.dbs.damage)

    def clear_damage(self, volume: int, position: int) -> None:
        self._txn.delete(_PLACE_KEY.pack(volume, position), db=self.dbs.damage)

    def is_damaged(self, volume: int, position: int) -> bool:
        return self._txn.get(_PLACE_KEY.pack(volume, position), db=self.dbs.damage) is not None

    def damaged_volumes(self) -> set[int]:
        """Numbers of the volumes that hold damage that is known."""
        found: set[int] = set()
        cursor = self._txn.cursor(db=self.dbs.damage)
        more = cursor.first()
        while more:
            number = int(_PLACE_KEY.unpack(cursor.key())[0])
            found.add(number)
            more = cursor.set_range(_PLACE_KEY.pack(number + 1, 0))
        return found

    def damage_count(self) -> int:
        return int(self._txn.stat(self.dbs.damage)["entries"])

    def damage(self, volume: int = 0, position: int = 0) -> Iterator[dict[str, Any]]:
        """What is noted, in the order of the disk, from a place on."""
        for key, value in self.scan(self.dbs.damage, _PLACE_KEY.pack(volume, position)):
            number, at = _PLACE_KEY.unpack(key)
            yield {"volume": number, "position": at, **json.loads(value)}


def load_totals(txn: Any, dbs: Databases) -> Totals:
    """What `Tables.flush` has written. Raises CorruptData."""
    totals = Totals()
    state = txn.get(b"totals", db=dbs.state)
    if state is not None:
        totals.next_node, totals.objects, totals.object_bytes, totals.newest = _STATE.unpack(state)
    for key, value in txn.cursor(db=dbs.state).iternext():
        if key.startswith(b"bucket"):
            objects, size = _USAGE.unpack(value)
            totals.usage[_USAGE_KEY.unpack(key)[1]] = objects, size
    for key, value in txn.cursor(db=dbs.volumes).iternext():
        totals.volumes[_VOLUME_KEY.unpack(key)[0]] = decode_volume(value)
    return totals
