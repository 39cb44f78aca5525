"""Get, put and delete the documents of a bucket's configuration about access, and answer for its ACL.

There are no ACLs here: as in every new bucket of AWS, its owner owns all objects and policies decide
(BucketOwnerEnforced).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import lru_cache
from typing import Final

from qss.errors import CorruptData
from qss.s3 import operations as op
from qss.s3.access.cors import CORS_BYTES_MAX, METHODS, CorsRule, cors_of, headers_for, preflight
from qss.s3.access.policy import Flavor, is_public, kept_policy, parse_policy
from qss.s3.access.settings import DELETED, ENFORCED, XML_NAMES, PublicAccess, public_access, public_access_of
from qss.s3.backend import ObjectBackend
from qss.s3.documents import xml_body
from qss.s3.errors import Code, S3Error
from qss.s3.message import Headers, Response, any_begins
from qss.s3.render import OWNER, XML_TYPE
from qss.s3.xml import document, element, leaf

_ABSENT: Final = {
    op.Config.POLICY: Code.NO_SUCH_BUCKET_POLICY,
    op.Config.POLICY_STATUS: Code.NO_SUCH_BUCKET_POLICY,
    op.Config.PUBLIC_ACCESS: Code.NO_SUCH_PUBLIC_ACCESS,
    op.Config.OWNERSHIP: Code.NO_SUCH_OWNERSHIP,
    op.Config.CORS: Code.NO_SUCH_CORS,
}
_CANNED_FINE: Final = ("private", "bucket-owner-full-control")
"""Canned ACLs that say what holds anyway. AWS takes only the second; `private` is what clients send by habit."""


# -- documents; a bucket's default encryption is none of them (qss.s3.encryption)
async def get_config(backend: ObjectBackend, asked: op.GetConfig) -> Response:
    await backend.head_bucket(asked.bucket)
    if asked.config is op.Config.POLICY_STATUS:
        return await _policy_status(backend, asked.bucket)
    found = await backend.get_document(asked.bucket, asked.config.document)
    if found is None:
        found = _DEFAULTS.get(asked.config)
    if found is None or found == DELETED:
        raise S3Error(_ABSENT[asked.config])
    kind = ("content-type", "application/json") if asked.config is op.Config.POLICY else XML_TYPE
    return Response(200, (kind,), found)


async def _policy_status(backend: ObjectBackend, bucket: str) -> Response:
    found = await backend.get_document(bucket, op.Config.POLICY.document)
    if found is None:
        raise S3Error(Code.NO_SUCH_BUCKET_POLICY)
    public = is_public(kept_policy(found, Flavor.BUCKET, bucket))
    return Response(200, (XML_TYPE,), document("PolicyStatus", [leaf("IsPublic", public)]))


async def put_config(backend: ObjectBackend, asked: op.PutConfig, content: bytes) -> Response:
    await backend.head_bucket(asked.bucket)
    if asked.config is op.Config.POLICY:
        await _check_policy(backend, asked.bucket, content)
    else:
        _CHECKS[asked.config](content)
    await backend.put_document(asked.bucket, asked.config.document, content)
    return Response(204 if asked.config is op.Config.POLICY else 200)


async def delete_config(backend: ObjectBackend, asked: op.DeleteConfig) -> Response:
    await backend.head_bucket(asked.bucket)
    kept = DELETED if asked.config in _DEFAULTS else None
    await backend.put_document(asked.bucket, asked.config.document, kept)
    return Response(204)


async def create_with(backend: ObjectBackend, bucket: str, headers: Mapping[str, str]) -> None:
    """What CreateBucket's headers ask for besides the bucket. Call `check_create` before."""
    if "x-amz-object-ownership" in headers:
        await backend.put_document(bucket, op.Config.OWNERSHIP.document, _OWNERSHIP)


def check_create(headers: Mapping[str, str]) -> None:
    """Raise S3Error for what CreateBucket cannot give."""
    ownership = headers.get("x-amz-object-ownership", ENFORCED)
    if ownership != ENFORCED:
        _refuse_ownership(ownership)
    check_acl(headers)


async def _check_policy(backend: ObjectBackend, bucket: str, content: bytes) -> None:
    try:
        policy = parse_policy(content, Flavor.BUCKET, bucket)
    except CorruptData as error:
        raise S3Error(Code.MALFORMED_POLICY, str(error)) from None
    switches = public_access(await backend.get_document(bucket, op.Config.PUBLIC_ACCESS.document))
    if switches.block_public_policy and is_public(policy):
        raise S3Error(
            Code.ACCESS_DENIED,
            "Public policies are prevented by the BlockPublicPolicy setting in S3 Block Public Access.",
        )


def _check_public_access(content: bytes) -> None:
    try:
        public_access_of(xml_body(content, "PublicAccessBlockConfiguration"))
    except CorruptData:
        raise S3Error(Code.MALFORMED_XML) from None


def _check_ownership(content: bytes) -> None:
    rules = list(xml_body(content, "OwnershipControls").all("Rule"))
    if len(rules) != 1:
        raise S3Error(Code.MALFORMED_XML)
    ownership = rules[0].get("ObjectOwnership")
    if ownership != ENFORCED:
        _refuse_ownership(ownership)


def _refuse_ownership(ownership: str) -> None:
    if ownership in ("BucketOwnerPreferred", "ObjectWriter"):
        raise S3Error(Code.NOT_IMPLEMENTED, f"ACLs are not implemented, so {ownership} cannot be had.")
    raise S3Error(Code.INVALID_ARGUMENT, f"Invalid x-amz-object-ownership: {ownership}")


def _check_cors(content: bytes) -> None:
    if len(content) > CORS_BYTES_MAX:
        raise S3Error(Code.MALFORMED_XML)
    root = xml_body(content, "CORSConfiguration")
    try:
        cors_of(root)
    except CorruptData as error:
        raise S3Error(Code.INVALID_REQUEST, str(error)) from None


_CHECKS: Final[dict[op.Config, Callable[[bytes], None]]] = {
    op.Config.PUBLIC_ACCESS: _check_public_access,
    op.Config.OWNERSHIP: _check_ownership,
    op.Config.CORS: _check_cors,
}


def _switches(value: PublicAccess) -> bytes:
    content = [leaf(name, getattr(value, field)) for field, name in XML_NAMES.items()]
    return document("PublicAccessBlockConfiguration", content)


_OWNERSHIP: Final = document("OwnershipControls", [element("Rule", leaf("ObjectOwnership", ENFORCED))])
_DEFAULTS: Final = {op.Config.PUBLIC_ACCESS: _switches(PublicAccess()), op.Config.OWNERSHIP: _OWNERSHIP}
"""What is answered, and holds, where nothing was ever put."""


# -- ACLs
_XSI: Final = 'xmlns:xsi="http://www.w3.org/2001/XMLSchema-instance" xsi:type="CanonicalUser"'


def acl() -> Response:
    """The one ACL there is: the owner may do everything."""
    owner = OWNER.removeprefix("<Owner>").removesuffix("</Owner>")
    grantee = f"<Grantee {_XSI}>{owner}</Grantee>"
    grants = element("AccessControlList", element("Grant", grantee, leaf("Permission", "FULL_CONTROL")))
    return Response(200, (XML_TYPE,), document("AccessControlPolicy", [OWNER, grants]))


def check_acl(headers: Mapping[str, str]) -> None:
    """Raise S3Error for an ACL on a bucket's making or an upload that says something else than what holds."""
    canned = headers.get("x-amz-acl")
    if any_begins(headers, "x-amz-grant-") or (canned is not None and canned not in _CANNED_FINE):
        raise S3Error(Code.ACL_NOT_SUPPORTED)


# -- CORS
async def _rules(backend: ObjectBackend, bucket: str) -> tuple[CorsRule, ...] | None:
    try:
        found = await backend.get_document(bucket, op.Config.CORS.document)
    except S3Error as error:
        if error.code is not Code.NO_SUCH_BUCKET:
            raise
        return None
    return None if found is None else _kept_rules(found)


@lru_cache(256)
def _kept_rules(content: bytes) -> tuple[CorsRule, ...]:
    return cors_of(xml_body(content, "CORSConfiguration"))


async def preflight_answer(backend: ObjectBackend, bucket: str, headers: Mapping[str, str]) -> Response:
    """To OPTIONS, which browsers send without a signature. Raises S3Error."""
    if not headers.get("origin"):
        raise S3Error(Code.BAD_REQUEST, "Insufficient information. Origin request header needed.")
    method = headers.get("access-control-request-method")
    if method not in METHODS:
        raise S3Error(Code.BAD_REQUEST, f"Invalid Access-Control-Request-Method: {method or 'null'}")
    rules = await _rules(backend, bucket)
    if rules is None:
        raise S3Error(Code.ACCESS_FORBIDDEN, "CORSResponse: CORS is not enabled for this bucket.")
    found = preflight(rules, headers)
    if found is None:
        raise S3Error(Code.ACCESS_FORBIDDEN)
    return Response(200, found)


async def cors_headers(backend: ObjectBackend, bucket: str, origin: str, method: str) -> Headers:
    """What the answer to a request of a page from `origin` says about CORS; nothing where no rule fits."""
    rules = await _rules(backend, bucket) if bucket else None
    return () if rules is None else headers_for(rules, origin, method)
