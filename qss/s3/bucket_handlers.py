"""Answers about buckets: making them, what is in them, their configuration. `qss.s3.server` calls them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from qss.s3 import operations as op
from qss.s3 import render, room
from qss.s3.access import configure
from qss.s3.backend import KnowsRoom
from qss.s3.call import Call
from qss.s3.documents import location_body
from qss.s3.errors import Code, S3Error
from qss.s3.handlers import Handler, Place
from qss.s3.message import Headers, Response
from qss.s3.parse import check_bucket_name


async def _list_buckets(place: Place, asked: op.ListBuckets, _: Call) -> Response:
    return render.buckets(asked, await place.backend.list_buckets())


async def _create_bucket(place: Place, asked: op.CreateBucket, call: Call) -> Response:
    check_bucket_name(asked.bucket)
    region = location_body(await call.document(), place.region)
    if region != place.region:
        raise S3Error(Code.INVALID_LOCATION)
    configure.check_create(call.head.headers)
    await place.backend.create_bucket(asked.bucket, region, lock=asked.lock)
    await configure.create_with(place.backend, asked.bucket, call.head.headers)
    return Response(200, (("location", f"/{asked.bucket}"),))


async def _head_bucket(place: Place, asked: op.HeadBucket, call: Call) -> Response:
    bucket = await place.backend.head_bucket(asked.bucket)
    headers: Headers = (("x-amz-bucket-region", bucket.region),)
    if call.verified is not None and isinstance(place.backend, KnowsRoom):
        headers += ((room.HEADER, str(place.backend.free_bytes(asked.bucket))),)
    return Response(200, headers)


async def _delete_bucket(place: Place, asked: op.DeleteBucket, _: Call) -> Response:
    await place.backend.delete_bucket(asked.bucket)
    return Response(204)


async def _get_location(place: Place, asked: op.GetLocation, _: Call) -> Response:
    return render.location(await place.backend.head_bucket(asked.bucket))


async def _list_objects(place: Place, asked: op.ListObjects, _: Call) -> Response:
    return render.listing(asked, await place.backend.list_objects(asked.query))


# -- configuration; a default encryption is no document (qss.s3.encryption)
async def _get_config(place: Place, asked: op.GetConfig, _: Call) -> Response:
    if asked.config is op.Config.ENCRYPTION:
        return await place.encryptor.get_default(asked.bucket)
    return await configure.get_config(place.backend, asked)


async def _put_config(place: Place, asked: op.PutConfig, call: Call) -> Response:
    content = await call.document()
    if asked.config is op.Config.ENCRYPTION:
        return await place.encryptor.put_default(asked.bucket, content)
    return await configure.put_config(place.backend, asked, content)


async def _delete_config(place: Place, asked: op.DeleteConfig, _: Call) -> Response:
    if asked.config is op.Config.ENCRYPTION:
        return await place.encryptor.delete_default(asked.bucket)
    return await configure.delete_config(place.backend, asked)


async def _get_acl(place: Place, asked: op.GetAcl | op.PutAcl, _: Call) -> Response:
    """Of objects, too: they all have the same."""
    await place.backend.head_bucket(asked.bucket)
    if asked.key:
        await place.backend.head(asked.bucket, asked.key, asked.version_id)
    return configure.acl()


async def _put_acl(place: Place, asked: op.PutAcl, call: Call) -> Response:
    await _get_acl(place, asked, call)
    raise S3Error(Code.ACL_NOT_SUPPORTED)


BUCKETS: Final[Mapping[type, Handler]] = {
    op.ListBuckets: _list_buckets,
    op.CreateBucket: _create_bucket,
    op.HeadBucket: _head_bucket,
    op.DeleteBucket: _delete_bucket,
    op.GetLocation: _get_location,
    op.ListObjects: _list_objects,
    op.GetConfig: _get_config,
    op.PutConfig: _put_config,
    op.DeleteConfig: _delete_config,
    op.GetAcl: _get_acl,
    op.PutAcl: _put_acl,
}
"""Beside `qss.s3.handlers.HANDLERS`."""
