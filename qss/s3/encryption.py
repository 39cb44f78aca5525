"""Server-side encryption in the service: what each operation may ask for, and the way to a backend that encrypts.

Over a backend that does not, every such request is NotImplemented: nothing is stored plain that was to be encrypted.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Final

from qss.s3 import operations as op
from qss.s3 import sse
from qss.s3 import subresources as sub
from qss.s3.backend import (
    CreateUpload,
    Encrypts,
    EtagMode,
    IncomingBody,
    ObjectBackend,
    ObjectReader,
    Part,
    PutRequest,
    StoredObject,
    UploadRef,
)
from qss.s3.documents import xml_body
from qss.s3.errors import Code, S3Error
from qss.s3.message import Response
from qss.s3.render import XML_TYPE

_STORES: Final = (op.PutObject, op.CopyObject, op.StartUpload)
_READS: Final = (op.GetObject, op.PutPart, op.CopyPart, sub.GetObjectAttributes)


@dataclass(frozen=True, slots=True)
class Encryptor:
    """One backend's way to encrypt. `keys_over_http`: customers' keys are taken without TLS, which AWS refuses."""

    backend: ObjectBackend
    keys_over_http: bool = False

    @property
    def _encrypts(self) -> Encrypts:
        if not isinstance(self.backend, Encrypts):
            raise _not_implemented()
        return self.backend

    def asked(self, operation: op.Operation, headers: Mapping[str, str], *, secure: bool) -> sse.Asked:
        """What a request says about encryption. Raises S3Error."""
        if not sse.is_mentioned(headers):
            return sse.NOTHING
        if not isinstance(operation, (*_STORES, *_READS)):
            return sse.NOTHING
        if not isinstance(self.backend, Encrypts):
            raise _not_implemented()
        read = sse.asked_to_store if isinstance(operation, _STORES) else sse.asked_to_read
        return read(headers, secure=secure or self.keys_over_http)

    async def open(
        self, bucket: str, key: str, version_id: str | None, customer: sse.CustomerKey | None
    ) -> ObjectReader:
        if customer is None:
            return await self.backend.open(bucket, key, version_id)
        return await self._encrypts.open_with(bucket, key, version_id, customer)

    async def head(
        self, bucket: str, key: str, version_id: str | None, customer: sse.CustomerKey | None
    ) -> StoredObject:
        """Raises S3Error, where a key of the customer's is missing or wrong."""
        found = await self.backend.head(bucket, key, version_id)
        if customer is None and found.sse is not sse.Sse.CUSTOMER:
            return found
        reader = await self.open(bucket, key, version_id, customer)
        await reader.aclose()
        return reader.info

    async def put_part(self, ref: UploadRef, number: int, body: IncomingBody, customer: sse.CustomerKey | None) -> Part:
        if customer is None:
            return await self.backend.put_part(ref, number, body)
        return await self._encrypts.put_part_with(ref, number, body, customer)

    # -- a bucket's default
    async def get_default(self, bucket: str) -> Response:
        if not (await self.backend.head_bucket(bucket)).encrypted:
            raise S3Error(Code.NO_SUCH_ENCRYPTION)
        return Response(200, (XML_TYPE,), sse.DEFAULT_DOCUMENT)

    async def put_default(self, bucket: str, content: bytes) -> Response:
        backend = self._encrypts
        await self.backend.head_bucket(bucket)
        sse.check_default(xml_body(content, "ServerSideEncryptionConfiguration"))
        await backend.set_encryption(bucket, encrypted=True)
        return Response(200)

    async def delete_default(self, bucket: str) -> Response:
        if (await self.backend.head_bucket(bucket)).encrypted:
            await self._encrypts.set_encryption(bucket, encrypted=False)
        return Response(204)


def _not_implemented() -> S3Error:
    return S3Error(Code.NOT_IMPLEMENTED, "Server-side encryption is not implemented.")


def to_store(request: PutRequest, asked: sse.Asked) -> PutRequest:
    """The request with its encryption."""
    if asked.store is None:
        return request
    return replace(request, encryption=asked.store, etag_mode=_etag_mode(request.etag_mode, asked))


def to_start(request: CreateUpload, asked: sse.Asked) -> CreateUpload:
    """As `to_store`, of an upload."""
    if asked.store is None:
        return request
    return replace(request, encryption=asked.store, etag_mode=_etag_mode(request.etag_mode, asked))


def _etag_mode(mode: EtagMode, asked: sse.Asked) -> EtagMode:
    """Under a customer's key an etag is no MD5, as with AWS: it would tell of the content who knows no key."""
    return mode if asked.customer is None else EtagMode.OPAQUE
