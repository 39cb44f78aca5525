"""What each operation needs: one table, actions on resources. Pure.

Source: "Actions, resources, and condition keys for Amazon S3" and "Required permissions for Amazon S3 API operations".
An operation without a row here is for root alone.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Final

from qss.s3 import operations as op
from qss.s3 import subresources as sub
from qss.s3.access.policy import ANY_RESOURCE, BUCKET_ARN
from qss.s3.backend import CreateUpload, PutRequest
from qss.s3.message import any_begins
from qss.values import quick

Headers = Mapping[str, str]


@quick
@dataclass(frozen=True, slots=True)
class Need:
    """One action on a bucket (`key` None), on an object, or on no bucket in particular (`bucket` "")."""

    action: str
    bucket: str = ""
    key: str | None = None
    version_id: str | None = None

    @property
    def resource(self) -> str:
        if not self.bucket:
            return ANY_RESOURCE
        return BUCKET_ARN + (self.bucket if self.key is None else f"{self.bucket}/{self.key}")


def needs_of(operation: op.Operation, headers: Headers) -> Sequence[Need] | None:
    """All that must be allowed before the operation begins; None: not for others than root."""
    row = NEEDS.get(type(operation))
    return None if row is None else row(operation, headers)


def _bucket(action: str) -> Callable[[Any, Headers], Sequence[Need]]:
    return lambda asked, _: (Need(action, asked.bucket),)


def _object(action: str, versioned: str) -> Callable[[Any, Headers], Sequence[Need]]:
    """`versioned` is the action where the request names a version."""

    def needs(asked: Any, _: Headers) -> Sequence[Need]:
        version = getattr(asked, "version_id", None)
        return (Need(action if version is None else versioned, asked.bucket, asked.key, version),)

    return needs


def _create_bucket(asked: op.CreateBucket, headers: Headers) -> Sequence[Need]:
    needs = [Need("s3:CreateBucket", asked.bucket)]
    if _has_acl(headers):
        needs.append(Need("s3:PutBucketAcl", asked.bucket))
    if "x-amz-object-ownership" in headers:
        needs.append(Need("s3:PutBucketOwnershipControls", asked.bucket))
    if asked.lock:
        needs += [
            Need("s3:PutBucketObjectLockConfiguration", asked.bucket),
            Need("s3:PutBucketVersioning", asked.bucket),
        ]
    return needs


def _has_acl(headers: Headers) -> bool:
    return "x-amz-acl" in headers or any_begins(headers, "x-amz-grant-")


def _write(request: PutRequest | CreateUpload, headers: Headers) -> list[Need]:
    """A put, or the start of one in parts: what sets something else besides asks for the right to set that."""
    bucket, key, lock = request.bucket, request.key, request.attributes.lock
    needs = [Need("s3:PutObject", bucket, key)]
    if "x-amz-tagging" in headers:
        needs.append(Need("s3:PutObjectTagging", bucket, key))
    if _has_acl(headers):
        needs.append(Need("s3:PutObjectAcl", bucket, key))
    if lock.retention is not None:
        needs.append(Need("s3:PutObjectRetention", bucket, key))
    if lock.legal_hold is not None:
        needs.append(Need("s3:PutObjectLegalHold", bucket, key))
    return needs


def _read_source(source: op.CopySource) -> Need:
    action = "s3:GetObject" if source.version_id is None else "s3:GetObjectVersion"
    return Need(action, source.bucket, source.key, source.version_id)


def _put(asked: op.PutObject | op.StartUpload, headers: Headers) -> Sequence[Need]:
    return _write(asked.request, headers)


def _copy(asked: op.CopyObject, headers: Headers) -> Sequence[Need]:
    """Tags that come along are asked about once it is known that there are any."""
    return (_read_source(asked.source), *_write(asked.request, headers))


def _part(action: str) -> Callable[[Any, Headers], Sequence[Need]]:
    return lambda asked, _: (Need(action, asked.ref.bucket, asked.ref.key),)


def _copy_part(asked: op.CopyPart, _: Headers) -> Sequence[Need]:
    return (_read_source(asked.source), Need("s3:PutObject", asked.ref.bucket, asked.ref.key))


def _delete(asked: op.DeleteObject, _: Headers) -> Sequence[Need]:
    request = asked.request
    action = "s3:DeleteObject" if request.version_id is None else "s3:DeleteObjectVersion"
    return _above(Need(action, asked.bucket, request.key, request.version_id), request.bypass)


def _above(need: Need, bypass: bool) -> Sequence[Need]:
    """Who asks to be above GOVERNANCE must have the right to it."""
    return (need, replace(need, action="s3:BypassGovernanceRetention")) if bypass else (need,)


def _put_retention(asked: sub.PutRetention, _: Headers) -> Sequence[Need]:
    return _above(Need("s3:PutObjectRetention", asked.bucket, asked.key, asked.version_id), asked.bypass)


def _acl(verb: str) -> Callable[[Any, Headers], Sequence[Need]]:
    def needs(asked: Any, _: Headers) -> Sequence[Need]:
        if not asked.key:
            return (Need(f"s3:{verb}BucketAcl", asked.bucket),)
        action = f"s3:{verb}ObjectAcl" if asked.version_id is None else f"s3:{verb}ObjectVersionAcl"
        return (Need(action, asked.bucket, asked.key, asked.version_id),)

    return needs


CONFIG_ACTIONS: Final[dict[op.Config, tuple[str, str, str]]] = {
    op.Config.POLICY: ("s3:GetBucketPolicy", "s3:PutBucketPolicy", "s3:DeleteBucketPolicy"),
    op.Config.POLICY_STATUS: ("s3:GetBucketPolicyStatus", "", ""),
    op.Config.PUBLIC_ACCESS: (
        "s3:GetBucketPublicAccessBlock",
        "s3:PutBucketPublicAccessBlock",
        "s3:PutBucketPublicAccessBlock",
    ),
    op.Config.OWNERSHIP: (
        "s3:GetBucketOwnershipControls",
        "s3:PutBucketOwnershipControls",
        "s3:PutBucketOwnershipControls",
    ),
    op.Config.CORS: ("s3:GetBucketCORS", "s3:PutBucketCORS", "s3:PutBucketCORS"),
    op.Config.ENCRYPTION: (
        "s3:GetEncryptionConfiguration",
        "s3:PutEncryptionConfiguration",
        "s3:PutEncryptionConfiguration",
    ),
}
"""Actions to get, put and delete a document of a bucket's configuration."""


def _config(which: int) -> Callable[[Any, Headers], Sequence[Need]]:
    return lambda asked, _: (Need(CONFIG_ACTIONS[asked.config][which], asked.bucket),)


def _attributes(asked: sub.GetObjectAttributes, _: Headers) -> Sequence[Need]:
    version = "" if asked.version_id is None else "Version"
    actions = f"s3:GetObject{version}", f"s3:GetObject{version}Attributes"
    return [Need(action, asked.bucket, asked.key, asked.version_id) for action in actions]


UNSET_ACTIONS: Final[dict[str, str]] = {
    "accelerate": "AccelerateConfiguration",
    "logging": "BucketLogging",
    "notification": "BucketNotification",
    "requestPayment": "BucketRequestPayment",
    "replication": "ReplicationConfiguration",
    "website": "BucketWebsite",
    "analytics": "AnalyticsConfiguration",
    "intelligent-tiering": "IntelligentTieringConfiguration",
    "inventory": "InventoryConfiguration",
    "metrics": "MetricsConfiguration",
}
"""Behind "s3:Get" and "s3:Put". For all of `UNSET_NAMES`: tests ask for each."""


def _delete_unset(asked: sub.DeleteUnset, _: Headers) -> Sequence[Need]:
    action = "s3:DeleteBucketWebsite" if asked.name == "website" else f"s3:Put{UNSET_ACTIONS[asked.name]}"
    return (Need(action, asked.bucket),)


NEEDS: Final[dict[type, Callable[[Any, Headers], Sequence[Need]]]] = {
    op.ListBuckets: lambda _, __: (Need("s3:ListAllMyBuckets"),),
    op.CreateBucket: _create_bucket,
    op.HeadBucket: _bucket("s3:ListBucket"),
    op.DeleteBucket: _bucket("s3:DeleteBucket"),
    op.GetLocation: _bucket("s3:GetBucketLocation"),
    op.ListObjects: lambda asked, _: (Need("s3:ListBucket", asked.query.bucket),),
    op.ListUploads: lambda asked, _: (Need("s3:ListBucketMultipartUploads", asked.query.bucket),),
    op.DeleteObjects: lambda _, __: (),  # each of its keys is authorised as a DeleteObject
    op.GetObject: _object("s3:GetObject", "s3:GetObjectVersion"),
    op.PutObject: _put,
    op.CopyObject: _copy,
    op.DeleteObject: _delete,
    op.GetTags: _object("s3:GetObjectTagging", "s3:GetObjectVersionTagging"),
    op.PutTags: _object("s3:PutObjectTagging", "s3:PutObjectVersionTagging"),
    op.DeleteTags: _object("s3:DeleteObjectTagging", "s3:DeleteObjectVersionTagging"),
    op.StartUpload: _put,
    op.PutPart: _part("s3:PutObject"),
    op.CopyPart: _copy_part,
    op.CompleteUpload: _part("s3:PutObject"),
    op.AbortUpload: _part("s3:AbortMultipartUpload"),
    op.ListParts: _part("s3:ListMultipartUploadParts"),
    sub.GetVersioning: _bucket("s3:GetBucketVersioning"),
    sub.PutVersioning: _bucket("s3:PutBucketVersioning"),
    sub.ListVersions: lambda asked, _: (Need("s3:ListBucketVersions", asked.query.bucket),),
    sub.GetLockSettings: _bucket("s3:GetBucketObjectLockConfiguration"),
    sub.PutLockSettings: _bucket("s3:PutBucketObjectLockConfiguration"),
    sub.GetRetention: _object("s3:GetObjectRetention", "s3:GetObjectRetention"),
    sub.PutRetention: _put_retention,
    sub.GetLegalHold: _object("s3:GetObjectLegalHold", "s3:GetObjectLegalHold"),
    sub.PutLegalHold: _object("s3:PutObjectLegalHold", "s3:PutObjectLegalHold"),
    sub.GetLifecycle: _bucket("s3:GetLifecycleConfiguration"),
    sub.PutLifecycle: _bucket("s3:PutLifecycleConfiguration"),
    sub.DeleteLifecycle: _bucket("s3:PutLifecycleConfiguration"),
    sub.GetBucketTags: _bucket("s3:GetBucketTagging"),
    sub.PutBucketTags: _bucket("s3:PutBucketTagging"),
    sub.DeleteBucketTags: _bucket("s3:PutBucketTagging"),
    sub.GetObjectAttributes: _attributes,
    sub.GetUnset: lambda asked, _: (Need(f"s3:Get{UNSET_ACTIONS[asked.name]}", asked.bucket),),
    sub.DeleteUnset: _delete_unset,
    op.GetAcl: _acl("Get"),
    op.PutAcl: _acl("Put"),
    op.GetConfig: _config(0),
    op.PutConfig: _config(1),
    op.DeleteConfig: _config(2),
}
"""Total over `Operation`, by test."""
