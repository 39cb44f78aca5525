"""What every ObjectBackend must do about versions, locks and documents. Beside S3BackendContract, which opens it:

class TestTrove(S3VersionsContract, S3BackendContract): ...
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Protocol

import pytest

from qss.s3.backend import (
    Attributes,
    CreateUpload,
    DeleteRequest,
    ObjectBackend,
    PutRequest,
    StoredObject,
    VersionEntry,
    Versioning,
    VersionsQuery,
    WantedPart,
    WriteCondition,
)
from qss.s3.errors import Code, S3Error
from qss.s3.lock import DAY_NS, DefaultRetention, LockChange, Mode, ObjectLock, Retention
from tests.contracts.s3_backend import BUCKET, body_of, content, expect, keys, put, ref_of

FAR_NS = 4_000_000_000 * 1_000_000_000  # 2096
LONG_AGO = "0" * 16  # the id of a version that cannot be

Case = Callable[[ObjectBackend], Awaitable[None]]


class Runs(Protocol):
    def run(self, case: Case, *, bucket: bool = True) -> None: ...


class S3VersionsContract:
    # -- versions
    def test_versioning_is_a_setting_of_the_bucket(self: Runs) -> None:
        async def case(backend: ObjectBackend) -> None:
            assert (await backend.head_bucket(BUCKET)).versioning is None
            assert (await put(backend, "k", b"1")).version_id is None
            assert (await backend.head(BUCKET, "k")).version_id is None
            for wanted in (Versioning.ENABLED, Versioning.SUSPENDED):
                await backend.set_versioning(BUCKET, wanted)
                assert (await backend.head_bucket(BUCKET)).versioning is wanted
                assert [each.versioning for each in await backend.list_buckets()] == [wanted]
            assert (await backend.head(BUCKET, "k")).version_id == "null"
            await expect(Code.NO_SUCH_BUCKET, backend.set_versioning("other-bucket", Versioning.ENABLED))

        self.run(case)

    def test_puts_keep_what_was(self: Runs) -> None:
        async def case(backend: ObjectBackend) -> None:
            await put(backend, "k", b"null")
            await backend.set_versioning(BUCKET, Versioning.ENABLED)
            first, second = await put(backend, "k", b"first"), await put(backend, "k", b"second")
            assert await keys(backend) == ["k"]
            assert await content(backend, "k") == b"second"
            assert (await backend.head(BUCKET, "k")).version_id == second.version_id
            for version_id, data in ((first.version_id, b"first"), ("null", b"null"), (second.version_id, b"second")):
                assert await read(backend, "k", version_id) == data
                head = await backend.head(BUCKET, "k", version_id)
                assert (head.version_id, head.size) == (version_id, len(data))
            assert await listed(backend) == [("k", second.version_id), ("k", first.version_id), ("k", "null")]
            assert second.version_id < first.version_id  # ids sort as listings do

        self.run(case)

    def test_suspended_writes_replace_the_null_version_only(self: Runs) -> None:
        async def case(backend: ObjectBackend) -> None:
            await backend.set_versioning(BUCKET, Versioning.ENABLED)
            kept = await put(backend, "k", b"kept")
            await backend.set_versioning(BUCKET, Versioning.SUSPENDED)
            for data in (b"one", b"two"):
                assert (await put(backend, "k", data)).version_id == "null"
                assert await content(backend, "k") == data
            assert await listed(backend) == [("k", "null"), ("k", kept.version_id)]
            outcome = (await backend.delete(BUCKET, [DeleteRequest("k")]))[0]
            assert (outcome.version_id, outcome.delete_marker) == ("null", True)
            assert await listed(backend) == [("k", "null marker"), ("k", kept.version_id)]
            await backend.set_versioning(BUCKET, Versioning.ENABLED)
            newest = await put(backend, "k", b"newest")
            assert await listed(backend) == [("k", newest.version_id), ("k", "null marker"), ("k", kept.version_id)]
            await backend.set_versioning(BUCKET, Versioning.SUSPENDED)
            await put(backend, "k", b"three")  # the null version moves to the front
            assert await listed(backend) == [("k", "null"), ("k", newest.version_id), ("k", kept.version_id)]
            assert await read(backend, "k", "null") == b"three"

        self.run(case)

    def test_delete_markers(self: Runs) -> None:
        async def case(backend: ObjectBackend) -> None:
            await backend.set_versioning(BUCKET, Versioning.ENABLED)
            stored = await put(backend, "k", b"x")
            outcomes = await backend.delete(BUCKET, [DeleteRequest("k"), DeleteRequest("never")])
            assert all(each.error is None and each.delete_marker and each.version_id for each in outcomes)
            marker = outcomes[0].version_id
            error = await expect_error(Code.NO_SUCH_KEY, backend.head(BUCKET, "k"))
            assert dict(error.headers) == {"x-amz-delete-marker": "true", "x-amz-version-id": marker}
            error = await expect_error(Code.METHOD_NOT_ALLOWED, backend.open(BUCKET, "k", marker))
            assert ("x-amz-delete-marker", "true") in error.headers
            assert error.headers[-1] == ("allow", "DELETE")
            assert await keys(backend) == []
            assert await read(backend, "k", stored.version_id) == b"x"
            await expect(Code.METHOD_NOT_ALLOWED, backend.put_tags(BUCKET, "k", (), marker))
            await expect(Code.NO_SUCH_KEY, backend.put_tags(BUCKET, "k", ()))
            await expect(Code.BUCKET_NOT_EMPTY, backend.delete_bucket(BUCKET))
            # Without its marker the object is there again.
            outcome = (await backend.delete(BUCKET, [DeleteRequest("k", marker)]))[0]
            assert (outcome.error, outcome.version_id, outcome.delete_marker) == (None, marker, True)
            assert await content(backend, "k") == b"x"
            assert await keys(backend) == ["k"]

        self.run(case)

    def test_deleting_versions(self: Runs) -> None:
        async def case(backend: ObjectBackend) -> None:
            await put(backend, "k", b"null")
            await backend.set_versioning(BUCKET, Versioning.ENABLED)
            made = [await put(backend, "k", b"%d" % number) for number in range(3)]
            for gone, left in ((made[1], b"2"), (made[2], b"0"), (made[0], b"null")):
                outcome = (await backend.delete(BUCKET, [DeleteRequest("k", gone.version_id)]))[0]
                assert (outcome.error, outcome.version_id, outcome.delete_marker) == (None, gone.version_id, False)
                assert await content(backend, "k") == left
                await expect(Code.NO_SUCH_VERSION, backend.head(BUCKET, "k", gone.version_id))
                again = (await backend.delete(BUCKET, [DeleteRequest("k", gone.version_id)]))[0]
                assert again.error is None
            await backend.delete(BUCKET, [DeleteRequest("k", "null")])
            await expect(Code.NO_SUCH_KEY, backend.head(BUCKET, "k"))
            assert await listed(backend) == []
            await expect(Code.NO_SUCH_VERSION, backend.head(BUCKET, "k", "null"))
            await expect(Code.NO_SUCH_VERSION, backend.head(BUCKET, "k", LONG_AGO))
            await expect(Code.INVALID_ARGUMENT, backend.head(BUCKET, "k", "no version"))
            wrong = (await backend.delete(BUCKET, [DeleteRequest("k", "no version")]))[0]
            assert wrong.error is not None
            assert wrong.error.code is Code.INVALID_ARGUMENT
            await backend.delete_bucket(BUCKET)

        self.run(case)

    def test_conditions_look_at_what_is_there(self: Runs) -> None:
        async def case(backend: ObjectBackend) -> None:
            await backend.set_versioning(BUCKET, Versioning.ENABLED)
            absent = WriteCondition(if_none_match="*")
            first = await put(backend, "k", b"1", absent)
            await expect(Code.PRECONDITION_FAILED, put(backend, "k", b"2", absent))
            await backend.delete(BUCKET, [DeleteRequest("k")])
            await expect(Code.NO_SUCH_KEY, put(backend, "k", b"2", WriteCondition(if_match=first.etag)))
            await put(backend, "k", b"2", absent)
            racers = [put(backend, "other", b"%d" % number, absent) for number in range(5)]
            results = await asyncio.gather(*racers, return_exceptions=True)
            assert sum(isinstance(each, StoredObject) for each in results) == 1
            assert len(await listed(backend, prefix="other")) == 1

        self.run(case)

    def test_tags_are_a_versions_own(self: Runs) -> None:
        async def case(backend: ObjectBackend) -> None:
            await put(backend, "k", b"null")
            await backend.set_versioning(BUCKET, Versioning.ENABLED)
            first, second = await put(backend, "k", b"1"), await put(backend, "k", b"2")
            wanted = {"null": "n", first.version_id: "1", second.version_id: "2"}
            for version_id, value in wanted.items():
                assert await backend.put_tags(BUCKET, "k", (("t", value),), version_id) == version_id
            assert await backend.put_tags(BUCKET, "k", (("t", "2"),)) == second.version_id
            for version_id, value in wanted.items():
                assert (await backend.head(BUCKET, "k", version_id)).attributes.tags == (("t", value),)
            await backend.delete(BUCKET, [DeleteRequest("k", second.version_id)])
            assert (await backend.head(BUCKET, "k")).attributes.tags == (("t", "1"),)

        self.run(case)

    def test_uploads_make_versions(self: Runs) -> None:
        async def case(backend: ObjectBackend) -> None:
            await backend.set_versioning(BUCKET, Versioning.ENABLED)
            made = []
            for data in (b"one", b"two"):
                ref = ref_of(await backend.create_upload(CreateUpload(BUCKET, "k", Attributes({}, {"m": "1"}))))
                part = await backend.put_part(ref, 1, body_of(data))
                made.append(await backend.complete_upload(ref, [WantedPart(1, part.etag)], WriteCondition()))
            assert await listed(backend) == [("k", made[1].version_id), ("k", made[0].version_id)]
            assert await read(backend, "k", made[0].version_id) == b"one"
            await backend.delete(BUCKET, [DeleteRequest("k", made[1].version_id)])
            assert await content(backend, "k") == b"one"
            assert (await backend.head(BUCKET, "k")).part_bytes == (3,)

        self.run(case)

    # -- listing
    @pytest.mark.parametrize("limit", [1, 2, 3, 1000])
    def test_listing_versions(self: Runs, limit: int) -> None:
        async def case(backend: ObjectBackend) -> None:
            long = "é" * 500
            for key in ("a", "b/1", "b/2", "c", long):
                await put(backend, key, b"null")
            await backend.set_versioning(BUCKET, Versioning.ENABLED)
            for key in ("a", "a", "b/2", "a!", long):
                await put(backend, key, b"")
            await backend.delete(BUCKET, [DeleteRequest(key) for key in ("c", "a", "b/2")])
            whole = await entries(backend)
            order = ["a"] * 4 + ["a!"] + ["b/1"] + ["b/2"] * 3 + ["c"] * 2 + [long] * 2
            assert [each.object.key for each in whole] == order
            assert [each.latest for each in whole] == [
                index == 0 or each.object.key != whole[index - 1].object.key for index, each in enumerate(whole)
            ]
            assert {each.object.key for each in whole if each.marker} == {"a", "b/2", "c"}
            assert all(each.latest for each in whole if each.marker)
            times = [each.object.modified_ns for each in whole if each.object.key == "a"]
            assert times == sorted(times, reverse=True)
            assert await entries(backend, limit=limit) == whole
            assert await entries(backend, limit=limit, prefix="b/") == whole[5:9]
            assert await keys(backend) == ["a!", "b/1", long]
            # A key alone steps over all its versions.
            page = await backend.list_versions(VersionsQuery(BUCKET, key_after="a"))
            assert page.entries[0].object.key == "a!"
            groups: list[str] = []
            found: list[VersionEntry] = []
            query = VersionsQuery(BUCKET, delimiter="/", limit=limit)
            while True:
                page = await backend.list_versions(query)
                groups += page.prefixes
                found += page.entries
                assert len(page.prefixes) + len(page.entries) <= limit
                if page.next_after is None:
                    break
                key, version = page.next_after
                query = VersionsQuery(BUCKET, "", "/", key, version, limit)
            assert groups == ["b/"]
            assert found == whole[:5] + whole[9:]
            empty = await backend.list_versions(VersionsQuery(BUCKET, limit=0))
            assert (empty.entries, empty.next_after) == ((), None)

        self.run(case)

    def test_a_listing_goes_on_where_its_marker_was_deleted(self: Runs) -> None:
        async def case(backend: ObjectBackend) -> None:
            await put(backend, "k", b"null")
            await backend.set_versioning(BUCKET, Versioning.ENABLED)
            for _ in range(3):
                await put(backend, "k", b"")
            query, seen = VersionsQuery(BUCKET, limit=1), []
            while True:
                page = await backend.list_versions(query)
                seen += [each.object.version_id for each in page.entries]
                for each in page.entries:
                    await backend.delete(BUCKET, [DeleteRequest("k", each.object.version_id)])
                if page.next_after is None:
                    break
                key, version = page.next_after
                query = VersionsQuery(BUCKET, "", "", key, version, 1)
            assert len(seen) == len(set(seen)) == 4
            assert await listed(backend) == []

        self.run(case)

    def test_a_bucket_without_versioning_lists_null_versions(self: Runs) -> None:
        async def case(backend: ObjectBackend) -> None:
            await put(backend, "b", b"1")
            await put(backend, "a", b"2")
            assert await listed(backend) == [("a", "null"), ("b", "null")]
            assert (await backend.head(BUCKET, "a", "null")).version_id is None
            await backend.delete(BUCKET, [DeleteRequest("a", "null")])
            assert await listed(backend) == [("b", "null")]
            await expect(Code.NO_SUCH_BUCKET, backend.list_versions(VersionsQuery("other-bucket")))

        self.run(case)

    # -- documents
    def test_documents(self: Runs) -> None:
        async def case(backend: ObjectBackend) -> None:
            assert await backend.get_document(BUCKET, "lifecycle") is None
            await backend.put_document(BUCKET, "lifecycle", b"<x/>")
            await backend.put_document(BUCKET, "cors", b"y" * 100_000)
            await backend.put_document(BUCKET, "lifecycle", b"<z/>")
            assert await backend.get_document(BUCKET, "lifecycle") == b"<z/>"
            assert await backend.get_document(BUCKET, "cors") == b"y" * 100_000
            for _ in range(2):
                await backend.put_document(BUCKET, "lifecycle", None)
                assert await backend.get_document(BUCKET, "lifecycle") is None
            assert await keys(backend) == []
            await backend.delete_bucket(BUCKET)
            await expect(Code.NO_SUCH_BUCKET, backend.get_document(BUCKET, "cors"))
            await expect(Code.NO_SUCH_BUCKET, backend.put_document(BUCKET, "cors", b"x"))
            await backend.create_bucket(BUCKET, "us-east-1")
            assert await backend.get_document(BUCKET, "cors") is None

        self.run(case)

    # -- object lock
    def test_lock_is_a_setting_of_versioned_buckets(self: Runs) -> None:
        async def case(backend: ObjectBackend) -> None:
            await expect(Code.INVALID_BUCKET_STATE, backend.set_lock(BUCKET, None))
            held = Attributes(lock=ObjectLock(legal_hold=True))
            await expect(Code.INVALID_REQUEST, backend.put(PutRequest(BUCKET, "k", held), body_of(b"")))
            await expect(Code.INVALID_REQUEST, backend.create_upload(CreateUpload(BUCKET, "k", held)))
            await put(backend, "k", b"")
            await expect(Code.INVALID_REQUEST, backend.put_lock(BUCKET, "k", LockChange(legal_hold=True)))
            await backend.set_versioning(BUCKET, Versioning.ENABLED)
            default = DefaultRetention(Mode.GOVERNANCE, days=3)
            await backend.set_lock(BUCKET, default)
            assert (await backend.head_bucket(BUCKET)).default_retention == default
            await expect(Code.INVALID_BUCKET_STATE, backend.set_versioning(BUCKET, Versioning.SUSPENDED))
            stored = await put(backend, "k", b"x")
            retention = (await backend.head(BUCKET, "k")).attributes.lock.retention
            assert retention is not None
            assert abs(retention.until_ns - stored.modified_ns - 3 * DAY_NS) < DAY_NS
            await backend.set_lock(BUCKET, None)
            await put(backend, "k", b"y")
            assert (await backend.head(BUCKET, "k")).attributes.lock == ObjectLock()
            await backend.create_bucket("other-bucket", "us-east-1", lock=True)
            other = await backend.head_bucket("other-bucket")
            assert (other.lock, other.versioning) == (True, Versioning.ENABLED)

        self.run(case)

    def test_what_is_held_stays(self: Runs) -> None:
        async def case(backend: ObjectBackend) -> None:
            await backend.set_versioning(BUCKET, Versioning.ENABLED)
            await backend.set_lock(BUCKET, None)
            for lock, bypassed in (
                (ObjectLock(Retention(Mode.COMPLIANCE, FAR_NS)), Code.ACCESS_DENIED),
                (ObjectLock(Retention(Mode.GOVERNANCE, FAR_NS)), None),
                (ObjectLock(legal_hold=True), Code.ACCESS_DENIED),
                (ObjectLock(Retention(Mode.COMPLIANCE, 1)), None),
                (ObjectLock(Retention(Mode.GOVERNANCE, FAR_NS), legal_hold=True), Code.ACCESS_DENIED),
            ):
                stored = await backend.put(PutRequest(BUCKET, "k", Attributes(lock=lock)), body_of(b"kept"))
                assert (await backend.head(BUCKET, "k")).attributes.lock == lock
                free = lock == ObjectLock(Retention(Mode.COMPLIANCE, 1))
                marker = (await backend.delete(BUCKET, [DeleteRequest("k")]))[0]  # hides, deletes nothing
                assert marker.error is None
                if not free:
                    assert await deletes(backend, stored) is Code.ACCESS_DENIED
                    assert await read(backend, "k", stored.version_id) == b"kept"
                assert await deletes(backend, stored, bypass=True) is bypassed
                marker = (await backend.delete(BUCKET, [DeleteRequest("k", marker.version_id)]))[0]
                assert marker.error is None

        self.run(case)

    def test_locks_change_as_they_may(self: Runs) -> None:
        async def case(backend: ObjectBackend) -> None:
            await backend.set_versioning(BUCKET, Versioning.ENABLED)
            await backend.set_lock(BUCKET, None)
            stored = await put(backend, "k", b"x")
            await backend.put_tags(BUCKET, "k", (("a", "1"),))

            async def change(bypass: bool = False, **what: object) -> ObjectLock:
                wanted = LockChange(bypass=bypass, **what)  # type: ignore[arg-type]
                assert await backend.put_lock(BUCKET, "k", wanted, stored.version_id) == stored.version_id
                return (await backend.head(BUCKET, "k")).attributes.lock

            near, far = Retention(Mode.GOVERNANCE, FAR_NS), Retention(Mode.GOVERNANCE, FAR_NS + DAY_NS)
            assert await change(retention=near) == ObjectLock(near)
            assert await change(retention=far) == ObjectLock(far)
            await expect(Code.ACCESS_DENIED, change(retention=near))
            await expect(Code.ACCESS_DENIED, change(retention=None))
            assert await change(retention=near, bypass=True) == ObjectLock(near)
            assert await change(legal_hold=True) == ObjectLock(near, legal_hold=True)
            assert await change(retention=None, bypass=True) == ObjectLock(None, legal_hold=True)
            assert await deletes(backend, stored, bypass=True) is Code.ACCESS_DENIED
            await backend.put_tags(BUCKET, "k", (("a", "2"),))
            assert await change(legal_hold=False) == ObjectLock(None, legal_hold=False)
            assert (await backend.head(BUCKET, "k")).attributes.tags == (("a", "2"),)
            strict = Retention(Mode.COMPLIANCE, FAR_NS)
            await change(retention=strict)
            for wanted in (near, far, None, Retention(Mode.COMPLIANCE, FAR_NS - 1)):
                await expect(Code.ACCESS_DENIED, change(retention=wanted, bypass=True))
            longer = Retention(Mode.COMPLIANCE, FAR_NS + 1)
            assert (await change(retention=longer)).retention == longer
            assert await deletes(backend, stored, bypass=True) is Code.ACCESS_DENIED

        self.run(case)

    def test_uploads_into_locked_buckets(self: Runs) -> None:
        async def case(backend: ObjectBackend) -> None:
            await backend.set_versioning(BUCKET, Versioning.ENABLED)
            await backend.set_lock(BUCKET, DefaultRetention(Mode.COMPLIANCE, years=1))
            for lock in (ObjectLock(), ObjectLock(Retention(Mode.GOVERNANCE, FAR_NS))):
                ref = ref_of(await backend.create_upload(CreateUpload(BUCKET, "k", Attributes(lock=lock))))
                part = await backend.put_part(ref, 1, body_of(b"x"))
                stored = await backend.complete_upload(ref, [WantedPart(1, part.etag)], WriteCondition())
                retention = (await backend.head(BUCKET, "k")).attributes.lock.retention
                assert retention is not None
                assert retention.mode is (Mode.GOVERNANCE if lock.retention else Mode.COMPLIANCE)
                assert await deletes(backend, stored) is Code.ACCESS_DENIED

        self.run(case)

    def test_a_hold_and_a_deletion_at_once(self: Runs) -> None:
        async def case(backend: ObjectBackend) -> None:
            await backend.set_versioning(BUCKET, Versioning.ENABLED)
            await backend.set_lock(BUCKET, None)
            for number in range(10):
                stored = await put(backend, f"k{number}", b"x")
                hold = backend.put_lock(BUCKET, stored.key, LockChange(legal_hold=True))
                delete = backend.delete(BUCKET, [DeleteRequest(stored.key, stored.version_id)])
                calls: list[Awaitable[object]] = [hold, delete]
                await asyncio.gather(*(calls if number % 2 else calls[::-1]), return_exceptions=True)
                if await listed(backend, stored.key):
                    assert (await backend.head(BUCKET, stored.key)).attributes.lock.legal_hold
                else:
                    await expect(Code.NO_SUCH_KEY, backend.head(BUCKET, stored.key))

        self.run(case)


async def read(backend: ObjectBackend, key: str, version_id: str | None) -> bytes:
    reader = await backend.open(BUCKET, key, version_id)
    try:
        return bytes(await reader.read(0, reader.info.size))
    finally:
        await reader.aclose()


async def entries(backend: ObjectBackend, prefix: str = "", limit: int = 1000) -> list[VersionEntry]:
    """All versions, by pages."""
    found: list[VersionEntry] = []
    query = VersionsQuery(BUCKET, prefix, limit=limit)
    while True:
        page = await backend.list_versions(query)
        found += page.entries
        if page.next_after is None:
            return found
        assert len(page.entries) == limit
        query = VersionsQuery(BUCKET, prefix, "", *page.next_after, limit)


async def listed(backend: ObjectBackend, prefix: str = "") -> list[tuple[str, str]]:
    """Keys and ids; those of delete markers without their own id, but for the null version's."""
    return [
        (each.object.key, f"{each.object.version_id}{' marker' * each.marker}")
        for each in await entries(backend, prefix)
    ]


async def deletes(backend: ObjectBackend, stored: StoredObject, *, bypass: bool = False) -> Code | None:
    """Try to delete a version; what refused."""
    request = DeleteRequest(stored.key, stored.version_id, bypass=bypass)
    error = (await backend.delete(BUCKET, [request]))[0].error
    return None if error is None else error.code


async def expect_error(code: Code, call: Awaitable[object]) -> S3Error:
    with pytest.raises(S3Error) as caught:
        await call
    assert caught.value.code is code
    return caught.value
