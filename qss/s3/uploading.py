"""Answers to multipart uploads and to copies into their parts. `qss.s3.server` calls them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from qss.s3 import operations as op
from qss.s3 import render
from qss.s3.backend import ObjectReader, UploadRef
from qss.s3.call import Call
from qss.s3.documents import complete_body
from qss.s3.encryption import Encryptor, to_start
from qss.s3.errors import Code, S3Error
from qss.s3.handlers import Handler, Place
from qss.s3.lock import check_future
from qss.s3.message import Response
from qss.s3.reading import copied_body
from qss.s3.sse import CustomerKey

_MARKER_SOURCE: Final = "The source of a copy request may not specifically refer to a delete marker by version id."


async def open_source(encryptor: Encryptor, source: op.CopySource, key: CustomerKey | None) -> ObjectReader:
    """Open what is to be copied, by the customer's key where it is under one. Raises S3Error."""
    try:
        reader = await encryptor.open(source.bucket, source.key, source.version_id, key)
    except S3Error as error:
        if error.code is Code.METHOD_NOT_ALLOWED:
            raise S3Error(Code.INVALID_REQUEST, _MARKER_SOURCE) from error
        raise
    try:
        source.condition.check_copy(reader.info)
    except BaseException:
        await reader.aclose()
        raise
    return reader


async def _start(place: Place, asked: op.StartUpload, call: Call) -> Response:
    request = to_start(asked.request, call.sse)
    check_future(request.attributes.lock.retention, place.now_ns)
    upload = await place.backend.create_upload(request)
    response = render.upload_started(UploadRef(request.bucket, request.key, upload.upload_id), upload)
    return response.and_headers(call.sse.answer(upload.sse) + await place.expiry.told_upload(request.bucket, upload))


async def _put_part(place: Place, asked: op.PutPart, call: Call) -> Response:
    upload = await place.backend.get_upload(asked.ref)
    body = call.body(upload.etag_mode, upload.checksum_algorithm)
    part = await place.encryptor.put_part(asked.ref, asked.number, body, call.sse.customer)
    headers = (("etag", f'"{part.etag}"'), *render.checksum_headers(part.checksum)[:1])
    return Response(200, (*headers, *call.sse.answer(upload.sse)))


async def _copy_part(place: Place, asked: op.CopyPart, call: Call) -> Response:
    upload = await place.backend.get_upload(asked.ref)
    reader = await open_source(place.encryptor, asked.source, call.sse.source)
    try:
        source = reader.info
        size = source.size
        start, stop = (0, size) if asked.range is None else asked.range.resolve(size)
        if asked.range is not None and asked.range.last is not None and asked.range.last >= size:
            raise S3Error(Code.INVALID_ARGUMENT, "Range specified is not valid for the source object")
        body = copied_body(reader, start, stop, upload.checksum_algorithm, upload.etag_mode)
        part = await place.encryptor.put_part(asked.ref, asked.number, body, call.sse.customer)
    finally:
        await reader.aclose()
    return render.copied("CopyPartResult", part, source).and_headers(call.sse.answer(upload.sse))


async def _complete(place: Place, asked: op.CompleteUpload, call: Call) -> Response:
    wanted = complete_body(await call.document())
    found = await place.backend.complete_upload(asked.ref, wanted, asked.condition)
    scheme = "https" if call.head.secure else "http"
    location = f"{scheme}://{call.head.headers.get('host', '')}/{asked.ref.bucket}/{asked.ref.key}"
    told = await place.expiry.told(asked.ref.bucket, found, found.attributes.tags)
    return render.upload_completed(asked.ref, found, location).and_headers(call.sse.answer(found.sse) + told)


async def _abort(place: Place, asked: op.AbortUpload, _: Call) -> Response:
    await place.backend.abort_upload(asked.ref)
    return Response(204)


async def _list_parts(place: Place, asked: op.ListParts, _: Call) -> Response:
    upload = await place.backend.get_upload(asked.ref)
    parts, more = await place.backend.list_parts(asked.ref, asked.after, asked.limit)
    told = await place.expiry.told_upload(asked.ref.bucket, upload)
    return render.parts(asked, upload, parts, more=more).and_headers(told)


async def _list_uploads(place: Place, asked: op.ListUploads, _: Call) -> Response:
    return render.uploads(asked, await place.backend.list_uploads(asked.query))


UPLOADING: Final[Mapping[type, Handler]] = {
    op.StartUpload: _start,
    op.PutPart: _put_part,
    op.CopyPart: _copy_part,
    op.CompleteUpload: _complete,
    op.AbortUpload: _abort,
    op.ListParts: _list_parts,
    op.ListUploads: _list_uploads,
}
"""Beside `qss.s3.handlers.HANDLERS`."""
