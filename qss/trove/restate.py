"""Records that are lost and yet said: what the index still knows of them is written again, with the version they had.

So it is with all that has no bytes of its own: settings of a bucket and its documents, tags and locks put on a version
later, delete markers, the beginning of an upload. A delete marker must not be dropped as an object is: what was
deleted would be there again.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass

from qss.formats.volume import Footer, Header, Kind, hash_blocks
from qss.trove.engine import Engine
from qss.trove.facts import VERSION, Fact, version_key
from qss.trove.places import walk_documents, walk_versions
from qss.trove.rows import TENANT, Place, decode_named, decode_upload
from qss.trove.tables import Tables

IsLost = Callable[[Tables, Place], bool]


@dataclass(frozen=True, slots=True)
class Statement:
    """All of a record that has no bytes of an object."""

    kind: Kind
    key: bytes
    version: int
    meta: bytes = b""
    body: bytes = b""
    numbered: bool = False


async def lost_statements(engine: Engine, lost: IsLost) -> AsyncIterator[Statement]:
    """What is to be written again. Of a version that is lost itself, nothing."""
    with engine.index.read() as tables:
        buckets = [(name, row) for name, row in tables.buckets(TENANT) if row.place.length and lost(tables, row.place)]
        uploads = [(key, decode_named(value)) for key, value in tables.scan(tables.dbs.uploads)]
        uploads = [(key, row) for key, row in uploads if lost(tables, row.place)]
    for name, row in buckets:
        yield Statement(Kind.BUCKET, name, row.version, row.meta)
    for upload, row in uploads:
        key, rest = decode_upload(row.meta)
        yield Statement(Kind.UPLOAD, key, row.version, upload + rest)
    async for bucket, name, document in walk_documents(engine.index):
        with engine.index.read() as tables:
            gone = lost(tables, document.place)
        if gone:
            yield Statement(Kind.DOCUMENT, bucket + b"/" + name, document.version, b"", document.meta)
    async for bucket, name, version in walk_versions(engine.index):
        full = bucket + b"/" + name
        with engine.index.read() as tables:
            gone = lost(tables, version.place)
            amend = tables.amend(version_key(TENANT, full, version.version, numbered=version.numbered))
            stays = gone or amend is None or amend.number != version.version or not lost(tables, amend.place)
        if gone and version.marker:
            yield Statement(Kind.MARKER, full, version.version, numbered=version.numbered)
        if amend is not None and not stays:
            meta = VERSION.pack(version.version) + amend.meta
            yield Statement(Kind.AMEND, full, amend.version, meta, numbered=version.numbered)


async def restate(engine: Engine, said: Statement) -> None:
    """Durable when it returns. Raises NoSpace, Retryable."""
    table = hash_blocks(said.body)
    header = Header(said.kind, said.key, said.version, meta=said.meta, body_len=len(said.body), numbered=said.numbered)
    footer = Footer(said.version, numbered=said.numbered)
    volume, place = engine.volumes.append(header, said.body, table, footer)
    fact = Fact(
        said.kind, said.key, said.version, place,
        meta=said.meta, body_at=header.body_at, size=len(said.body), body=said.body, numbered=said.numbered,
    )  # fmt: skip
    await engine.committer.submit(volume, fact)
