"""What one record of a volume says, and what it does to the index.

The same function serves a commit, the replay of a tail and a rebuild from nothing: `apply` may see records in any
order and more than once. Versions decide who is newer; graves remember what was deleted, for records that come late.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Final

from blake3 import blake3

from qss.errors import CorruptData
from qss.formats.sse import plain_len
from qss.formats.volume import EtagKind, Kind, decode_parts
from qss.trove.keyversions import KeyVersions
from qss.trove.rows import TENANT, NamedRow, ObjectRow, PartRow, Place, decode_named, decode_part, encode_upload
from qss.trove.tables import Tables
from qss.values import quick

PART_KEY: Final = struct.Struct(">16sI")
UPLOAD_ID_BYTES: Final = 16
VERSION: Final = struct.Struct("<Q")
"""What an AMEND's metadata begins with, and all of a VERSION_GONE's."""
WITH_BODY: Final = frozenset({Kind.COMPOSITE, Kind.DOCUMENT})
"""Records whose body says something to the index."""
OBJECTS: Final = frozenset({Kind.OBJECT, Kind.COMPOSITE, Kind.MARKER})
"""Records that are a version of a key."""
IN_HEADER: Final = frozenset(
    {Kind.TOMBSTONE, Kind.VERSION_GONE, Kind.BUCKET, Kind.BUCKET_GONE, Kind.UPLOAD, Kind.UPLOAD_GONE, Kind.AMEND}
)
"""Records whose header says all: no body, and a footer that repeats the version."""


@quick
@dataclass(frozen=True, slots=True)
class Fact:
    """A record that verifies (or, `damaged`, one of which only the header does)."""

    kind: Kind
    key: bytes  # as in the record
    version: int
    place: Place
    meta: bytes = b""
    tenant: int = 0
    body_at: int = 0
    size: int = 0  # of the body, as it is stored
    etag: bytes = bytes(16)
    etag_kind: EtagKind = EtagKind.NONE
    late: bytes = b""
    body: bytes = b""  # of WITH_BODY
    damaged: bool = False
    numbered: bool = False
    sealed: bool = False  # the body is encrypted

    @property
    def plain_size(self) -> int:
        """Bytes of what was put. Raises CorruptData."""
        return plain_len(self.size) if self.sealed else self.size


def split_key(key: bytes) -> tuple[bytes, bytes]:
    """Bucket and key of a record's key `bucket/key`. Raises CorruptData."""
    bucket, slash, rest = key.partition(b"/")
    if not slash or not bucket or not rest:
        raise CorruptData("record key names no bucket")
    return bucket, rest


def grave_key(tenant: int, space: bytes, key: bytes) -> bytes:
    """Under which a deletion is remembered: 16 bytes, whatever the length of the key."""
    return blake3(space + struct.pack(">I", tenant) + key).digest(16)


def version_key(tenant: int, key: bytes, version: int, *, numbered: bool) -> bytes:
    """Under which the end of a version, and what amends it, is kept. All null versions of a key share one."""
    if not numbered:
        return grave_key(tenant, b"o", key)
    return grave_key(tenant, b"v", key + VERSION.pack(version))


def upload_grave(upload: bytes) -> bytes:
    """Under which it is remembered that an upload is over: aborted, or an object now."""
    return grave_key(TENANT, b"u", upload)


def apply(tables: Tables, fact: Fact) -> None:
    """Make the index say what the record says, unless something newer is known. Raises CorruptData."""
    tables.saw(fact.place.volume, fact.version)
    match fact.kind:
        case Kind.OBJECT | Kind.COMPOSITE | Kind.MARKER:
            _object(tables, fact)
        case Kind.TOMBSTONE:
            _tombstone(tables, fact)
        case Kind.VERSION_GONE:
            _version_gone(tables, fact)
        case Kind.DOCUMENT:
            _document(tables, fact)
        case Kind.PART:
            _part(tables, fact)
        case Kind.BUCKET | Kind.BUCKET_GONE:
            _bucket(tables, fact)
        case Kind.UPLOAD:
            _upload(tables, fact)
        case Kind.UPLOAD_GONE:
            drop_upload(tables, fact.key, fact.version)
            tables.live(fact.place, +1)
        case Kind.AMEND:
            _amend(tables, fact)
        case Kind.MARK:
            pass


def _object(tables: Tables, fact: Fact) -> None:
    bucket, key = split_key(fact.key)
    upload, refs = decode_parts(fact.body) if fact.kind == Kind.COMPOSITE and not fact.damaged else (None, [])
    grave = tables.grave(version_key(fact.tenant, fact.key, fact.version, numbered=fact.numbered))
    if grave > fact.version:
        _ended(tables, upload, fact)
        return
    number = _bucket_id(tables, fact.tenant, bucket)
    versions = KeyVersions(tables, number, key)
    if upload is not None and not _completes(tables, versions, upload, fact):
        return
    old = versions.find(fact.version) if fact.numbered else versions.null()
    if old is not None and old.version > fact.version:
        _ended(tables, upload, fact)
        return
    row = ObjectRow(
        fact.place,
        fact.body_at,
        fact.plain_size,
        fact.version,
        fact.etag,
        fact.etag_kind,
        sealed=fact.sealed,
        damaged=fact.damaged,
        numbered=fact.numbered,
        marker=fact.kind == Kind.MARKER,
    )
    if upload is not None:
        row = replace(row, size=sum(ref.size for ref in refs), parts=len(refs))
        _complete(tables, upload, fact, [ref.number for ref in refs])
    if old is not None:
        if old.place == fact.place:
            return
        release(tables, fact, number, old, keep=row.parts > 0 and old.version == fact.version)
    versions.put(row, old)
    tables.live(fact.place, +1)
    if not row.marker:
        tables.count(number, +1, row.size)


def _ended(tables: Tables, upload: bytes | None, fact: Fact) -> None:
    """A version that is replaced or deleted already. Its upload, if it had one, is over as well."""
    if upload is not None:
        drop_upload(tables, upload, fact.version)


def _completes(tables: Tables, versions: KeyVersions, upload: bytes, fact: Fact) -> bool:
    """Whether this record is the one that counts for its upload: the newest of those that complete it.

    There are more when the index did not take the first one and the client was told to send it again; they have the
    same parts, so one of them must go, and without the parts.
    """
    if tables.composite(upload) is None:
        return not tables.grave(upload_grave(upload))  # what it became is gone, its parts with it
    found = (row for row in versions.all() if row.parts and tables.owner_of(row.place) == upload)
    other = next(found, None)
    if other is not None and other.version < fact.version:
        release(tables, fact, versions.bucket, other, keep=True)
        versions.remove(other)
    return other is None or other.version <= fact.version


def release(tables: Tables, fact: Fact, bucket: int, row: ObjectRow, *, keep: bool = False) -> None:
    """Take back what a version that is replaced or deleted held; `keep` its parts if it only moved, or they are those
    of what replaces it. `bucket`: its number."""
    tables.live(row.place, -1)
    tables.clear_damage(row.place.volume, row.place.position)
    if not row.marker:
        tables.count(bucket, -1, -row.size)
    if fact.version != row.version:
        key = version_key(fact.tenant, fact.key, row.version, numbered=row.numbered)
        amend = tables.amend(key)
        if amend is not None and amend.number <= row.version:  # not that of a later null version, read earlier
            tables.set_amend(key, None)
    if row.parts and not keep:
        owner = tables.owner_of(row.place)
        if owner is not None:
            tables.set_composite(owner, None, row.place)
            for number, part in list(parts_of(tables, owner)):
                _drop_part(tables, owner, number, part)
    elif row.parts:
        tables.move_owner(row.place, fact.place)


def _complete(tables: Tables, upload: bytes, fact: Fact, numbers: list[int]) -> None:
    """The upload has become an object: its row goes, its listed parts stay."""
    tables.set_composite(upload, numbers, fact.place)
    old = tables.get(tables.dbs.uploads, upload)
    if old is not None:
        tables.live(decode_named(old).place, -1)
        tables.delete(tables.dbs.uploads, upload)
    tables.set_grave(upload_grave(upload), fact.version)
    wanted = set(numbers)
    for number, part in list(parts_of(tables, upload)):
        if number not in wanted:
            _drop_part(tables, upload, number, part)


def _tombstone(tables: Tables, fact: Fact) -> None:
    """The key's null version is gone: where there is no versioning, all there is."""
    tables.set_grave(grave_key(fact.tenant, b"o", fact.key), fact.version)
    tables.live(fact.place, +1)
    versions = _versions(tables, fact)
    old = None if versions is None else versions.null()
    if versions is not None and old is not None and old.version < fact.version:
        release(tables, fact, versions.bucket, old)
        versions.remove(old)


def _version_gone(tables: Tables, fact: Fact) -> None:
    (version,) = VERSION.unpack_from(fact.meta)
    gone = version_key(fact.tenant, fact.key, version, numbered=True)
    tables.set_grave(gone, fact.version)
    tables.live(fact.place, +1)
    tables.set_amend(gone, None)
    versions = _versions(tables, fact)
    old = None if versions is None else versions.find(version)
    if versions is not None and old is not None and old.numbered:
        release(tables, fact, versions.bucket, old)
        versions.remove(old)


def _versions(tables: Tables, fact: Fact) -> KeyVersions | None:
    bucket, key = split_key(fact.key)
    number = tables.bucket_id(fact.tenant, bucket)
    return None if number is None else KeyVersions(tables, number, key)


def _document(tables: Tables, fact: Fact) -> None:
    bucket, _ = split_key(fact.key)
    old = tables.document(fact.tenant, fact.key)
    known = max(tables.grave(grave_key(fact.tenant, b"b", bucket)), old.version if old else 0)
    if known > fact.version or (old and old.place == fact.place):
        return
    if old:
        tables.live(old.place, -1)
    tables.live(fact.place, +1)
    tables.set_document(fact.tenant, fact.key, NamedRow(fact.place, 0, fact.version, fact.body))


def _bucket_id(tables: Tables, tenant: int, name: bytes) -> int:
    """The bucket's number; a bucket whose own record has not been seen yet gets one for the time being."""
    found = tables.bucket_id(tenant, name)
    if found is None:
        found = tables.new_node()
        tables.set_bucket(tenant, name, NamedRow(Place(0, 0, 0), found, 0, b""))
    return found


def _bucket(tables: Tables, fact: Fact) -> None:
    grave = grave_key(fact.tenant, b"b", fact.key)
    row = tables.bucket(fact.tenant, fact.key)
    known = max(tables.grave(grave), row.version if row else 0)
    if known > fact.version or (row and row.place == fact.place):
        return
    if row:
        tables.live(row.place, -1)
    tables.live(fact.place, +1)
    if fact.kind == Kind.BUCKET:
        number = row.number if row else tables.new_node()
        tables.set_bucket(fact.tenant, fact.key, NamedRow(fact.place, number, fact.version, fact.meta))
        return
    tables.set_grave(grave, fact.version)
    for name, document in list(tables.documents(fact.tenant, fact.key)):
        if document.version < fact.version:
            tables.live(document.place, -1)
            tables.set_document(fact.tenant, fact.key + b"/" + name, None)
    if row and tables.is_bare(row.number):
        tables.set_bucket(fact.tenant, fact.key, None)
    elif row:  # objects of another life are still to be seen dead: keep the tree for now
        tables.set_bucket(fact.tenant, fact.key, NamedRow(Place(0, 0, 0), row.number, 0, b""))


def _upload(tables: Tables, fact: Fact) -> None:
    upload = fact.meta[:UPLOAD_ID_BYTES]
    if tables.grave(upload_grave(upload)):
        return
    old = tables.get(tables.dbs.uploads, upload)
    if old is not None:
        if decode_named(old).place == fact.place:
            return
        tables.live(decode_named(old).place, -1)
    meta = encode_upload(fact.key, fact.meta[UPLOAD_ID_BYTES:])
    tables.put(tables.dbs.uploads, upload, NamedRow(fact.place, fact.version, fact.version, meta).encode())
    tables.live(fact.place, +1)


def _part(tables: Tables, fact: Fact) -> None:
    if len(fact.key) != PART_KEY.size:
        raise CorruptData("part key has a wrong length")
    upload, number = PART_KEY.unpack(fact.key)
    numbers = tables.composite(upload)
    if numbers is not None and number not in numbers:
        return
    if numbers is None and tables.grave(upload_grave(upload)):
        return
    old = tables.get(tables.dbs.parts, fact.key)
    if old is not None:
        row = decode_part(old)
        if row.version > fact.version or row.place == fact.place:
            return
        tables.live(row.place, -1)
    tables.put(tables.dbs.parts, fact.key, part_row(fact).encode())
    tables.live(fact.place, +1)


def part_row(fact: Fact) -> PartRow:
    """The row of a PART. Raises CorruptData."""
    return PartRow(fact.place, fact.plain_size, fact.version, fact.body_at, fact.etag, fact.late, fact.sealed)


def _drop_part(tables: Tables, upload: bytes, number: int, row: PartRow) -> None:
    tables.live(row.place, -1)
    tables.delete(tables.dbs.parts, PART_KEY.pack(upload, number))


def parts_of(tables: Tables, upload: bytes, after: int = 0) -> Iterator[tuple[int, PartRow]]:
    """Parts of an upload with number > after, in order."""
    for key, value in tables.scan(tables.dbs.parts, PART_KEY.pack(upload, after + 1)):
        if key[:UPLOAD_ID_BYTES] != upload:
            return
        yield PART_KEY.unpack(key)[1], decode_part(value)


def drop_upload(tables: Tables, upload: bytes, version: int) -> None:
    """Forget an upload and its parts, unless it has become an object."""
    if tables.composite(upload) is not None:
        return
    tables.set_grave(upload_grave(upload), version)
    old = tables.get(tables.dbs.uploads, upload)
    if old is not None:
        tables.live(decode_named(old).place, -1)
        tables.delete(tables.dbs.uploads, upload)
    for number, part in list(parts_of(tables, upload)):
        _drop_part(tables, upload, number, part)


def _amend(tables: Tables, fact: Fact) -> None:
    """The first 8 bytes of the metadata name the version it amends; stale ones go when the object goes."""
    (of,) = VERSION.unpack_from(fact.meta)
    key = version_key(fact.tenant, fact.key, of, numbered=fact.numbered)
    if fact.numbered and tables.grave(key):
        return
    old = tables.amend(key)
    if old is not None:
        if old.version > fact.version or old.place == fact.place:
            return
        tables.live(old.place, -1)
    tables.set_amend(key, NamedRow(fact.place, of, fact.version, fact.meta[VERSION.size :]))
    tables.live(fact.place, +1)
