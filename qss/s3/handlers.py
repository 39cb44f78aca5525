"""Answers to the operations of `qss.s3.subresources`: body → backend → document. `qss.s3.server` calls them."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from typing import Any, Final

from qss.s3 import lock_documents as docs
from qss.s3 import operations as op
from qss.s3 import render
from qss.s3 import subresources as sub
from qss.s3.attributes import attributes
from qss.s3.backend import Checksum, KnowsParts, ObjectBackend
from qss.s3.call import Call
from qss.s3.documents import tags_body
from qss.s3.encryption import Encryptor
from qss.s3.errors import Code, S3Error
from qss.s3.expiry import LIFECYCLE, Expiry
from qss.s3.lifecycle_documents import rules_body, rules_document
from qss.s3.lock import LockChange, ObjectLock, check_future
from qss.s3.message import Response
from qss.s3.unset import told

TAGGING: Final = "tagging"
"""Names of documents are the subresources' own."""

BUCKET_TAGS_MAX: Final = 50


@dataclass(frozen=True, slots=True)
class Place:
    """Where a request is answered."""

    backend: ObjectBackend
    now_ns: int
    encryptor: Encryptor
    expiry: Expiry
    region: str


Handler = Callable[[Place, Any, Call], Awaitable[Response]]


# -- versions
async def _get_versioning(place: Place, asked: sub.GetVersioning, _: Call) -> Response:
    return docs.versioning(await place.backend.head_bucket(asked.bucket))


async def _put_versioning(place: Place, asked: sub.PutVersioning, call: Call) -> Response:
    await place.backend.set_versioning(asked.bucket, docs.versioning_body(await call.document()))
    return Response(200)


async def _list_versions(place: Place, asked: sub.ListVersions, _: Call) -> Response:
    return render.versions(asked, await place.backend.list_versions(asked.query))


# -- object lock
async def _get_lock_settings(place: Place, asked: sub.GetLockSettings, _: Call) -> Response:
    return docs.lock_settings(await place.backend.head_bucket(asked.bucket))


async def _put_lock_settings(place: Place, asked: sub.PutLockSettings, call: Call) -> Response:
    await place.backend.set_lock(asked.bucket, docs.lock_settings_body(await call.document()))
    return Response(200)


async def _lock_of(place: Place, asked: sub.GetRetention | sub.GetLegalHold) -> ObjectLock:
    if not (await place.backend.head_bucket(asked.bucket)).lock:
        raise S3Error(Code.INVALID_REQUEST, "Bucket is missing Object Lock Configuration")
    return (await place.backend.head(asked.bucket, asked.key, asked.version_id)).attributes.lock


async def _get_retention(place: Place, asked: sub.GetRetention, _: Call) -> Response:
    return docs.retention(await _lock_of(place, asked))


async def _put_retention(place: Place, asked: sub.PutRetention, call: Call) -> Response:
    wanted = docs.retention_body(await call.document())
    check_future(wanted, place.now_ns)
    change = LockChange(wanted, bypass=asked.bypass)
    return Response(
        200, render.version_headers(await place.backend.put_lock(asked.bucket, asked.key, change, asked.version_id))
    )


async def _get_legal_hold(place: Place, asked: sub.GetLegalHold, _: Call) -> Response:
    return docs.legal_hold(await _lock_of(place, asked))


async def _put_legal_hold(place: Place, asked: sub.PutLegalHold, call: Call) -> Response:
    change = LockChange(legal_hold=docs.legal_hold_body(await call.document()))
    return Response(
        200, render.version_headers(await place.backend.put_lock(asked.bucket, asked.key, change, asked.version_id))
    )


# -- documents: lifecycle, tags of buckets
def _get_document(name: str, absent: Code) -> Handler:
    """`absent`: the answer where there is none."""

    async def get(place: Place, asked: Any, _: Call) -> Response:
        content = await place.backend.get_document(asked.bucket, name)
        if content is None:
            raise S3Error(absent)
        return Response(200, (render.XML_TYPE,), content)

    return get


def _delete_document(name: str) -> Handler:
    async def delete(place: Place, asked: Any, _: Call) -> Response:
        await place.backend.put_document(asked.bucket, name, None)
        return Response(204)

    return delete


async def _put_lifecycle(place: Place, asked: sub.PutLifecycle, call: Call) -> Response:
    await place.backend.head_bucket(asked.bucket)
    rules = rules_body(await call.document())
    await place.backend.put_document(asked.bucket, LIFECYCLE, rules_document(rules))
    return Response(200)


async def _put_bucket_tags(place: Place, asked: sub.PutBucketTags, call: Call) -> Response:
    tags = tags_body(await call.document(), BUCKET_TAGS_MAX)
    await place.backend.put_document(asked.bucket, TAGGING, bytes(render.tagging(tags).body))
    return Response(204)


# -- tags of objects; to put them, the gate has to see them (qss.s3.server)
async def _get_tags(place: Place, asked: op.GetTags, _: Call) -> Response:
    found = await place.backend.head(asked.bucket, asked.key, asked.version_id)
    return render.tagging(found.attributes.tags).and_headers(render.version_headers(found.version_id))


async def _delete_tags(place: Place, asked: op.DeleteTags, _: Call) -> Response:
    version_id = await place.backend.put_tags(asked.bucket, asked.key, (), asked.version_id)
    return Response(204, render.version_headers(version_id))


# -- attributes, and what is not there
async def _get_attributes(place: Place, asked: sub.GetObjectAttributes, call: Call) -> Response:
    found = await place.encryptor.head(asked.bucket, asked.key, asked.version_id, call.sse.customer)
    checksums: Sequence[Checksum | None] = ()
    if "ObjectParts" in asked.wanted.names and found.part_bytes and isinstance(place.backend, KnowsParts):
        checksums = await place.backend.part_checksums(asked.bucket, asked.key, asked.version_id)
    return attributes(found, asked.wanted, checksums if len(checksums) == len(found.part_bytes) else ())


async def _get_unset(place: Place, asked: sub.GetUnset, _: Call) -> Response:
    await place.backend.head_bucket(asked.bucket)
    return told(asked.name, with_id=asked.with_id)


async def _delete_unset(place: Place, asked: sub.DeleteUnset, _: Call) -> Response:
    await place.backend.head_bucket(asked.bucket)
    return Response(204)


HANDLERS: Final[dict[type, Handler]] = {
    sub.GetVersioning: _get_versioning,
    sub.PutVersioning: _put_versioning,
    sub.ListVersions: _list_versions,
    sub.GetLockSettings: _get_lock_settings,
    sub.PutLockSettings: _put_lock_settings,
    sub.GetRetention: _get_retention,
    sub.PutRetention: _put_retention,
    sub.GetLegalHold: _get_legal_hold,
    sub.PutLegalHold: _put_legal_hold,
    sub.GetLifecycle: _get_document(LIFECYCLE, Code.NO_SUCH_LIFECYCLE),
    sub.PutLifecycle: _put_lifecycle,
    sub.DeleteLifecycle: _delete_document(LIFECYCLE),
    sub.GetBucketTags: _get_document(TAGGING, Code.NO_SUCH_TAG_SET),
    sub.PutBucketTags: _put_bucket_tags,
    sub.DeleteBucketTags: _delete_document(TAGGING),
    op.GetTags: _get_tags,
    op.DeleteTags: _delete_tags,
    sub.GetObjectAttributes: _get_attributes,
    sub.GetUnset: _get_unset,
    sub.DeleteUnset: _delete_unset,
}
"""Taken in by `qss.s3.server`, whose table is total by test."""
