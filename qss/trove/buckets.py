"""Buckets of a node: their settings, which stand in their own record, and documents, which have one each."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, replace
from typing import Final

from qss.formats.volume import Kind
from qss.host import Clock
from qss.s3.backend import DOCUMENT_BYTES_MAX, Attributes, Bucket, Versioning
from qss.s3.errors import Code, S3Error
from qss.s3.lock import UNLOCKED, DefaultRetention
from qss.trove.engine import Draft, Engine
from qss.trove.keyversions import KeyVersions
from qss.trove.meta import bucket_of, encode_bucket
from qss.trove.quotas import Usage
from qss.trove.rows import TENANT, decode_named
from qss.trove.tables import Tables

_KNOWN_MAX: Final = 10_000  # buckets, and documents
_KEPT_BYTES_MAX: Final = 4096
"""Longer documents are read again each time; with `_KNOWN_MAX` of this length 40 MB are kept."""
_LOCKED: Final = "An Object Lock configuration is present on this bucket, so the versioning state cannot be changed."


@dataclass(frozen=True, slots=True)
class BucketState:
    """A bucket as the index knows it."""

    number: int  # of its key trees
    info: Bucket

    @property
    def numbered(self) -> bool:
        """Whether what is written now is a version of its own."""
        return self.info.versioning is Versioning.ENABLED


class Buckets:
    """Settings are read on the way of every request: they are kept decoded until one of any bucket changes."""

    def __init__(self, engine: Engine, drop_uploads: Callable[[str], Awaitable[None]]) -> None:
        self._engine = engine
        self._drop_uploads = drop_uploads
        self._closing: set[str] = set()
        self._settings = -1  # what `_known` and `_documents` have been read at
        self._known: dict[str, BucketState] = {}
        self._documents: dict[tuple[str, str], bytes | None] = {}

    def state(self, tables: Tables, name: str) -> BucketState:
        """Raises NO_SUCH_BUCKET. Not for the inside of a writing transaction: what that changes may be undone."""
        self._keep_up()
        if name in self._closing:
            raise S3Error(Code.NO_SUCH_BUCKET)
        state = self._known.get(name)
        if state is None:
            row = tables.bucket_row(TENANT, name.encode())
            if row is None:
                raise S3Error(Code.NO_SUCH_BUCKET)
            decoded = decode_named(row)
            state = BucketState(decoded.number, bucket_of(name, decoded.meta))
            if len(self._known) >= _KNOWN_MAX:
                self._known.clear()
            self._known[name] = state
        return state

    def _keep_up(self) -> None:
        settings = self._engine.index.settings
        if self._settings != settings:
            self._settings = settings
            self._known.clear()
            self._documents.clear()

    def now(self, name: str) -> BucketState:
        """As `state`, without a transaction where none is needed."""
        self._keep_up()
        state = self._known.get(name)
        if state is not None and name not in self._closing:
            return state
        with self._engine.index.read() as tables:
            return self.state(tables, name)

    def all(self) -> Sequence[Bucket]:
        with self._engine.index.read() as tables:
            return [bucket_of(name.decode(), row.meta) for name, row in tables.buckets(TENANT)]

    async def create(self, name: str, region: str, *, lock: bool) -> None:
        key = name.encode()

        def decide() -> None:
            with self._engine.index.read() as tables:
                if tables.bucket_row(TENANT, key) is not None:
                    raise S3Error(Code.BUCKET_ALREADY_OWNED)

        decide()
        versioning = Versioning.ENABLED if lock else None
        meta = encode_bucket(Bucket(name, self._engine.clock.now_ns(), region, versioning, lock))
        await self._engine.note(Draft(Kind.BUCKET, key, meta, decide, (key,)))

    async def delete(self, name: str) -> None:
        self.now(name)
        key = name.encode()
        self._closing.add(name)  # from here no new record of this bucket is begun
        try:
            await self._engine.committer.through()
            with self._engine.index.read() as tables:
                number = tables.bucket_id(TENANT, key)
                if number is None:
                    raise S3Error(Code.NO_SUCH_BUCKET)
                if not tables.is_bare(number):
                    raise S3Error(Code.BUCKET_NOT_EMPTY)
            await self._drop_uploads(name)
            await self._engine.note(Draft(Kind.BUCKET_GONE, key))
        finally:
            self._closing.discard(name)

    async def set_versioning(self, name: str, versioning: Versioning) -> None:
        def change(bucket: Bucket) -> Bucket:
            if bucket.lock and versioning is not Versioning.ENABLED:
                raise S3Error(Code.INVALID_BUCKET_STATE, _LOCKED)
            return replace(bucket, versioning=versioning)

        await self._change(name, change)

    async def set_lock(self, name: str, default: DefaultRetention | None) -> None:
        def change(bucket: Bucket) -> Bucket:
            if bucket.versioning is not Versioning.ENABLED:
                raise S3Error(
                    Code.INVALID_BUCKET_STATE,
                    "Versioning must be 'Enabled' on the bucket to apply a Object Lock configuration",
                )
            return replace(bucket, lock=True, default_retention=default)

        await self._change(name, change)

    async def set_encryption(self, name: str, encrypted: bool) -> None:
        await self._change(name, lambda bucket: replace(bucket, encrypted=encrypted))

    async def _change(self, name: str, change: Callable[[Bucket], Bucket]) -> None:
        key = name.encode()
        await self._engine.committer.quiet(key)
        # From here to the append in `note` nothing else runs: what is read is what is replaced.
        meta = encode_bucket(change(self.now(name).info))
        await self._engine.note(Draft(Kind.BUCKET, key, meta))

    def document(self, bucket: str, name: str) -> bytes | None:
        self.now(bucket)  # also forgets documents that are out of date
        which = (bucket, name)
        if which in self._documents:
            return self._documents[which]
        with self._engine.index.read() as tables:
            row = tables.document(TENANT, _document_key(bucket, name))
        found = None if row is None else row.meta or None
        if found is None or len(found) <= _KEPT_BYTES_MAX:
            if len(self._documents) >= _KNOWN_MAX:
                self._documents.clear()
            self._documents[which] = found
        return found

    def adds(self, name: str, key: bytes, size: int) -> Usage:
        """What a put of `size` bytes adds to what the bucket holds: what it replaces is given back."""
        with self._engine.index.read() as tables:
            state = self.state(tables, name)
            old = None if state.numbered else KeyVersions(tables, state.number, key).null()
        return Usage(1, size) if old is None or old.marker else Usage(0, size - old.size)

    async def put_document(self, bucket: str, name: str, content: bytes | None) -> None:
        self.now(bucket)
        if content is not None and not 0 < len(content) <= DOCUMENT_BYTES_MAX:
            raise S3Error(Code.ENTITY_TOO_LARGE)
        if content is None and self.document(bucket, name) is None:
            return
        await self._engine.note(Draft(Kind.DOCUMENT, _document_key(bucket, name)), content or b"")


def _document_key(bucket: str, name: str) -> bytes:
    return f"{bucket}/{name}".encode()


def with_lock(bucket: Bucket, attributes: Attributes, clock: Clock) -> Attributes:
    """What a new object of this bucket gets. Raises INVALID_REQUEST for a lock where there may be none."""
    if not bucket.lock:
        if attributes.lock is not UNLOCKED and attributes.lock != UNLOCKED:
            raise S3Error(Code.INVALID_REQUEST, "Bucket is missing Object Lock Configuration")
        return attributes
    default = bucket.default_retention
    if default is None or attributes.lock.retention is not None:
        return attributes
    return replace(attributes, lock=replace(attributes.lock, retention=default.from_now(clock.now_ns())))
