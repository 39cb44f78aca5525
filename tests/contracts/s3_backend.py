"""What every ObjectBackend must do, whoever it is. Subclass it and say how to open one, fresh and empty:

    class TestTrove(S3BackendContract):
        @asynccontextmanager
        async def opened(self):
            ...
            yield backend

Runs under asyncio; for a backend on trio override `run`.
"""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AbstractAsyncContextManager

import pytest

from qss.s3.backend import (
    PART_BYTES_MIN,
    Attributes,
    Chunk,
    CreateUpload,
    DeleteRequest,
    EtagMode,
    ListQuery,
    ObjectBackend,
    PutRequest,
    StoredObject,
    Upload,
    UploadRef,
    UploadsQuery,
    WantedPart,
    WriteCondition,
)
from qss.s3.body import BodyClaims, CheckedBody
from qss.s3.errors import Code, S3Error

BUCKET = "bucket-1"


def body_of(
    data: bytes, *, piece: int = 65_536, mode: EtagMode = EtagMode.MD5, checksum: str | None = None
) -> CheckedBody:
    async def raw() -> AsyncIterator[Chunk]:
        for start in range(0, len(data), piece):
            yield memoryview(data)[start : start + piece]

    return CheckedBody(raw(), BodyClaims(len(data), want_checksum=checksum), mode)


def spoiled_body(data: bytes) -> CheckedBody:
    """All bytes come, and then the digest does not hold."""

    async def raw() -> AsyncIterator[Chunk]:
        yield data

    return CheckedBody(raw(), BodyClaims(len(data), content_md5=bytes(16)))


class S3BackendContract:
    def opened(self) -> AbstractAsyncContextManager[ObjectBackend]:
        raise NotImplementedError("give the contract a fresh, empty backend")

    def run(self, case: Callable[[ObjectBackend], Awaitable[None]], *, bucket: bool = True) -> None:
        async def main() -> None:
            async with self.opened() as backend:
                if bucket:
                    await backend.create_bucket(BUCKET, "us-east-1")
                await case(backend)

        asyncio.run(main())

    # -- buckets
    def test_buckets(self) -> None:
        async def case(backend: ObjectBackend) -> None:
            assert list(await backend.list_buckets()) == []
            for name in ("bbb", "aaa", "a.b-c"):
                await backend.create_bucket(name, "us-east-1")
            assert [each.name for each in await backend.list_buckets()] == ["a.b-c", "aaa", "bbb"]
            assert (await backend.head_bucket("aaa")).region == "us-east-1"
            await expect(Code.BUCKET_ALREADY_OWNED, backend.create_bucket("aaa", "us-east-1"))
            await backend.delete_bucket("aaa")
            await expect(Code.NO_SUCH_BUCKET, backend.head_bucket("aaa"))
            await expect(Code.NO_SUCH_BUCKET, backend.delete_bucket("aaa"))

        self.run(case, bucket=False)

    def test_a_bucket_with_objects_stays(self) -> None:
        async def case(backend: ObjectBackend) -> None:
            await put(backend, "k", b"x")
            await expect(Code.BUCKET_NOT_EMPTY, backend.delete_bucket(BUCKET))
            await backend.delete(BUCKET, [DeleteRequest("k")])
            await backend.create_upload(CreateUpload(BUCKET, "k"))  # does not count
            await backend.delete_bucket(BUCKET)
            await backend.create_bucket(BUCKET, "us-east-1")
            assert (await backend.list_uploads(UploadsQuery(BUCKET))).uploads == ()

        self.run(case)

    def test_no_bucket(self) -> None:
        async def case(backend: ObjectBackend) -> None:
            for call in (
                put(backend, "k", b"x"),
                backend.open(BUCKET, "k"),
                backend.head(BUCKET, "k"),
                backend.delete(BUCKET, [DeleteRequest("k")]),
                backend.list_objects(ListQuery(BUCKET)),
                backend.put_tags(BUCKET, "k", ()),
                backend.create_upload(CreateUpload(BUCKET, "k")),
                backend.list_uploads(UploadsQuery(BUCKET)),
            ):
                await expect(Code.NO_SUCH_BUCKET, call)

        self.run(case, bucket=False)

    # -- put, get, head, delete
    @pytest.mark.parametrize("size", [0, 1, 65_535, 65_536, 65_537, 5_000_000])
    def test_put_then_read(self, size: int) -> None:
        data = (bytes(range(256)) * (size // 256 + 1))[:size]
        attributes = Attributes({"content-type": "text/x"}, {"name": "välue"}, (("t", "1"),))

        async def case(backend: ObjectBackend) -> None:
            request = PutRequest(BUCKET, "k", attributes)
            stored = await backend.put(request, body_of(data, checksum="CRC32"))
            assert (stored.size, stored.etag) == (size, md5(data))
            assert stored.checksum is not None
            head = await backend.head(BUCKET, "k")
            assert gist(head) == gist(stored)
            assert head.attributes == attributes
            reader = await backend.open(BUCKET, "k")
            assert reader.info == head
            for start, stop in {(0, size), (0, min(1, size)), (size // 3, size // 2), (size, size)}:
                if stop - start <= 4_000_000:
                    assert bytes(await reader.read(start, stop)) == data[start:stop]
                assert b"".join([bytes(chunk) async for chunk in reader.chunks(start, stop)]) == data[start:stop]
            await reader.aclose()

        self.run(case)

    def test_opaque_etags_change_with_the_content(self) -> None:
        async def case(backend: ObjectBackend) -> None:
            etags = []
            for data in (b"one", b"two", b"one"):
                request = PutRequest(BUCKET, "k", etag_mode=EtagMode.OPAQUE)
                etags.append((await backend.put(request, body_of(data, mode=EtagMode.OPAQUE))).etag)
                assert (await backend.head(BUCKET, "k")).etag == etags[-1]
            assert etags[0] == etags[2] != etags[1]
            assert all(len(bytes.fromhex(etag)) == 16 for etag in etags)

        self.run(case)

    def test_put_replaces_and_readers_are_pinned(self) -> None:
        async def case(backend: ObjectBackend) -> None:
            await put(backend, "k", b"old content")
            reader = await backend.open(BUCKET, "k")
            await put(backend, "k", b"new")
            assert bytes(await reader.read(0, 11)) == b"old content"
            await reader.aclose()
            assert await content(backend, "k") == b"new"
            reader = await backend.open(BUCKET, "k")
            await backend.delete(BUCKET, [DeleteRequest("k")])
            assert bytes(await reader.read(0, 3)) == b"new"
            await reader.aclose()

        self.run(case)

    @pytest.mark.parametrize("size", [10, 300_000])
    def test_a_spoiled_body_leaves_what_was(self, size: int) -> None:
        async def case(backend: ObjectBackend) -> None:
            await expect(Code.BAD_DIGEST, backend.put(PutRequest(BUCKET, "k"), spoiled_body(bytes(size))))
            await expect(Code.NO_SUCH_KEY, backend.head(BUCKET, "k"))
            await put(backend, "k", b"old")
            await expect(Code.BAD_DIGEST, backend.put(PutRequest(BUCKET, "k"), spoiled_body(bytes(size))))
            assert await content(backend, "k") == b"old"

        self.run(case)

    def test_missing(self) -> None:
        async def case(backend: ObjectBackend) -> None:
            await expect(Code.NO_SUCH_KEY, backend.open(BUCKET, "k"))
            await expect(Code.NO_SUCH_KEY, backend.head(BUCKET, "k"))
            await expect(Code.NO_SUCH_KEY, backend.put_tags(BUCKET, "k", ()))
            outcome = (await backend.delete(BUCKET, [DeleteRequest("k")]))[0]
            assert outcome.error is None

        self.run(case)

    def test_delete_many_answers_in_order(self) -> None:
        async def case(backend: ObjectBackend) -> None:
            stored = await put(backend, "b", b"x")
            await put(backend, "c", b"x")
            outcomes = await backend.delete(
                BUCKET,
                [
                    DeleteRequest("a"),
                    DeleteRequest("b", condition=WriteCondition(if_match="0" * 32)),
                    DeleteRequest("c"),
                ],
            )
            assert [each.key for each in outcomes] == ["a", "b", "c"]
            assert [each.error and each.error.code for each in outcomes] == [None, Code.PRECONDITION_FAILED, None]
            assert await keys(backend) == ["b"]
            condition = WriteCondition(if_match=stored.etag)
            await backend.delete(BUCKET, [DeleteRequest("b", condition=condition)])
            assert await keys(backend) == []

        self.run(case)

    def test_conditional_puts(self) -> None:
        async def case(backend: ObjectBackend) -> None:
            absent, other = WriteCondition(if_none_match="*"), WriteCondition(if_match="0" * 32)
            first = await put(backend, "k", b"1", absent)
            await expect(Code.PRECONDITION_FAILED, put(backend, "k", b"2", absent))
            await expect(Code.PRECONDITION_FAILED, put(backend, "k", b"2", other))
            await expect(Code.NO_SUCH_KEY, put(backend, "new", b"2", other))
            assert await content(backend, "k") == b"1"
            await put(backend, "k", b"3", WriteCondition(if_match=first.etag))
            assert await content(backend, "k") == b"3"

        self.run(case)

    def test_of_many_conditional_puts_one_wins(self) -> None:
        async def case(backend: ObjectBackend) -> None:
            absent = WriteCondition(if_none_match="*")
            racers = [put(backend, "k", b"%d" % number, absent) for number in range(10)]
            results = await asyncio.gather(*racers, return_exceptions=True)
            winners = [number for number, each in enumerate(results) if isinstance(each, StoredObject)]
            losers = {each.code for each in results if isinstance(each, S3Error)}
            assert len(winners) == 1
            assert losers <= {Code.PRECONDITION_FAILED, Code.CONDITIONAL_CONFLICT}
            assert await content(backend, "k") == b"%d" % winners[0]

        self.run(case)

    def test_tags_change_nothing_else(self) -> None:
        async def case(backend: ObjectBackend) -> None:
            before = await put(backend, "k", b"x")
            await backend.put_tags(BUCKET, "k", (("a", "1"), ("b", "ü")))
            after = await backend.head(BUCKET, "k")
            assert after.attributes.tags == (("a", "1"), ("b", "ü"))
            assert (after.etag, after.size, after.modified_ns) == (before.etag, before.size, before.modified_ns)
            await backend.put_tags(BUCKET, "k", ())
            assert (await backend.head(BUCKET, "k")).attributes.tags == ()
            assert await content(backend, "k") == b"x"

        self.run(case)

    # -- listing
    def test_listing_in_byte_order_with_long_equal_beginnings(self) -> None:
        names = ["a", "a!", "a/", "a/b", "b" * 1000 + "1", "b" * 1000 + "2", "b" * 1024, "é", "\uffee", "\U0001f600"]

        async def case(backend: ObjectBackend) -> None:
            for name in reversed(names):
                await put(backend, name, name.encode())
            assert await keys(backend) == names
            for name in names:
                assert await content(backend, name) == name.encode()
            found: list[str] = []
            after = ""
            while True:
                page = await backend.list_objects(ListQuery(BUCKET, after=after, limit=3))
                found += [each.key for each in page.objects]
                if page.next_after is None:
                    break
                after = page.next_after
            assert found == names

        self.run(case)

    def test_listing_with_delimiter(self) -> None:
        names = ["a", "b/1", "b/2", "b/c/3", "c/", "d", "e//f"]

        async def listed(backend: ObjectBackend, **query: object) -> list[str]:
            found: list[str] = []
            after = str(query.pop("after", ""))
            while True:
                page = await backend.list_objects(ListQuery(BUCKET, after=after, **query))  # type: ignore[arg-type]
                found += sorted([each.key for each in page.objects] + [f"({each})" for each in page.prefixes])
                if page.next_after is None:
                    return found
                after = page.next_after

        async def case(backend: ObjectBackend) -> None:
            for name in names:
                await put(backend, name, b"")
            for limit in (1, 2, 1000):
                found = await listed(backend, delimiter="/", limit=limit)
                assert sorted(found) == sorted(["a", "(b/)", "(c/)", "d", "(e/)"])
                assert sorted(await listed(backend, prefix="b/", delimiter="/", limit=limit)) == [
                    "(b/c/)",
                    "b/1",
                    "b/2",
                ]
                assert await listed(backend, prefix="b/", after="b/1", limit=limit) == ["b/2", "b/c/3"]
                assert sorted(await listed(backend, delimiter="/", after="b/", limit=limit)) == ["(c/)", "(e/)", "d"]
                assert await listed(backend, prefix="e", delimiter="//", limit=limit) == ["(e//)"]
            empty = await backend.list_objects(ListQuery(BUCKET, limit=0))
            assert (empty.objects, empty.next_after) == ((), None)
            full = await backend.list_objects(ListQuery(BUCKET, limit=len(names)))
            assert full.next_after is None

        self.run(case)

    # -- multipart
    def test_multipart(self) -> None:
        parts = [bytes([number]) * size for number, size in ((1, PART_BYTES_MIN), (2, PART_BYTES_MIN + 1), (9, 10))]

        async def case(backend: ObjectBackend) -> None:
            attributes = Attributes({"content-type": "text/x"}, {"m": "1"}, (("t", "1"),))
            upload = await backend.create_upload(CreateUpload(BUCKET, "k", attributes))
            ref = ref_of(upload)
            assert (await backend.get_upload(ref)).attributes == attributes
            await backend.put_part(ref, 2, body_of(b"replaced"))
            wanted = []
            for number, data in zip((1, 2, 9), parts, strict=True):
                part = await backend.put_part(ref, number, body_of(data, piece=1 << 20))
                assert (part.number, part.size, part.etag) == (number, len(data), md5(data))
                wanted.append(WantedPart(number, part.etag))
            listed, more = await backend.list_parts(ref, after=1, limit=1)
            assert ([each.number for each in listed], more) == ([2], True)
            await expect(Code.NO_SUCH_KEY, backend.head(BUCKET, "k"))
            stored = await backend.complete_upload(ref, wanted, WriteCondition())
            assert stored.size == sum(map(len, parts))
            assert stored.etag == md5(b"".join(hashlib.md5(data).digest() for data in parts)) + "-3"
            head = await backend.head(BUCKET, "k")
            assert gist(head) == gist(stored)
            assert head.attributes == attributes
            assert head.part_bytes == tuple(map(len, parts))
            assert [each.etag for each in (await backend.list_objects(ListQuery(BUCKET))).objects] == [stored.etag]
            whole = b"".join(parts)
            assert await content(backend, "k") == whole
            reader = await backend.open(BUCKET, "k")
            edge = PART_BYTES_MIN
            assert bytes(await reader.read(edge - 3, edge + 3)) == whole[edge - 3 : edge + 3]
            await reader.aclose()
            await expect(Code.NO_SUCH_UPLOAD, backend.get_upload(ref))

        self.run(case)

    def test_multipart_refusals_change_nothing(self) -> None:
        async def case(backend: ObjectBackend) -> None:
            upload = await backend.create_upload(CreateUpload(BUCKET, "k"))
            ref = ref_of(upload)
            one, two = [await backend.put_part(ref, number, body_of(b"x")) for number in (1, 2)]
            always = WriteCondition()
            for code, wanted in [
                (Code.INVALID_PART, [WantedPart(1, "0" * 32)]),
                (Code.INVALID_PART, [WantedPart(3, one.etag)]),
                (Code.INVALID_PART_ORDER, [WantedPart(2, two.etag), WantedPart(1, one.etag)]),
                (Code.ENTITY_TOO_SMALL, [WantedPart(1, one.etag), WantedPart(2, two.etag)]),
            ]:
                await expect(code, backend.complete_upload(ref, wanted, always))
            await put(backend, "k", b"other")
            absent = WriteCondition(if_none_match="*")
            await expect(Code.PRECONDITION_FAILED, backend.complete_upload(ref, [WantedPart(1, one.etag)], absent))
            await expect(Code.BAD_DIGEST, backend.put_part(ref, 1, spoiled_body(b"spoiled")))
            listed, _ = await backend.list_parts(ref)
            assert [each.etag for each in listed] == [one.etag, two.etag]
            assert await content(backend, "k") == b"other"
            await backend.complete_upload(ref, [WantedPart(1, one.etag)], always)
            assert await content(backend, "k") == b"x"

        self.run(case)

    def test_multipart_abort(self) -> None:
        async def case(backend: ObjectBackend) -> None:
            ref = ref_of(await backend.create_upload(CreateUpload(BUCKET, "k")))
            await backend.put_part(ref, 1, body_of(b"x"))
            for wrong in (UploadRef(BUCKET, "other", ref.upload_id), UploadRef(BUCKET, "k", "nonsense")):
                await expect(Code.NO_SUCH_UPLOAD, backend.put_part(wrong, 1, body_of(b"x")))
                await expect(Code.NO_SUCH_UPLOAD, backend.abort_upload(wrong))
            await backend.abort_upload(ref)
            for call in (
                backend.abort_upload(ref),
                backend.list_parts(ref),
                backend.put_part(ref, 1, body_of(b"x")),
                backend.complete_upload(ref, [WantedPart(1, md5(b"x"))], WriteCondition()),
            ):
                await expect(Code.NO_SUCH_UPLOAD, call)

        self.run(case)

    def test_list_uploads_pages(self) -> None:
        async def case(backend: ObjectBackend) -> None:
            made = []
            for key in ("b", "a", "b", "c/d"):
                upload = await backend.create_upload(CreateUpload(BUCKET, key))
                made.append((key, upload.upload_id))
            found: list[tuple[str, str]] = []
            after = ("", "")
            while True:
                page = await backend.list_uploads(UploadsQuery(BUCKET, "", "", *after, limit=1))
                found += [(each.key, each.upload_id) for each in page.uploads]
                if page.next_after is None:
                    break
                after = page.next_after
            assert [key for key, _ in found] == ["a", "b", "b", "c/d"]
            assert sorted(found) == sorted(made)
            page = await backend.list_uploads(UploadsQuery(BUCKET, prefix="b"))
            assert [each.key for each in page.uploads] == ["b", "b"]

        self.run(case)


async def expect(code: Code, call: Awaitable[object]) -> None:
    with pytest.raises(S3Error) as caught:
        await call
    assert caught.value.code is code


async def put(backend: ObjectBackend, key: str, data: bytes, condition: WriteCondition | None = None) -> StoredObject:
    request = PutRequest(BUCKET, key, condition=condition or WriteCondition())
    return await backend.put(request, body_of(data))


def gist(stored: StoredObject) -> tuple[object, ...]:
    """What a write must answer; a read tells the attributes and parts too."""
    return stored.key, stored.size, stored.etag, stored.modified_ns, stored.checksum, stored.version_id


async def content(backend: ObjectBackend, key: str) -> bytes:
    reader = await backend.open(BUCKET, key)
    try:
        return b"".join([bytes(chunk) async for chunk in reader.chunks(0, reader.info.size)])
    finally:
        await reader.aclose()


async def keys(backend: ObjectBackend) -> list[str]:
    return [each.key for each in (await backend.list_objects(ListQuery(BUCKET))).objects]


def ref_of(upload: Upload) -> UploadRef:
    return UploadRef(BUCKET, upload.key, upload.upload_id)


def md5(data: bytes) -> str:
    return hashlib.md5(data).hexdigest()
