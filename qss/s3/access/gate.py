"""The one place where requests are allowed or denied, whatever front they come through.

Order, for each need of an operation (qss.s3.access.actions): a Deny of the user's policies or of the bucket's ends it;
root is allowed; then an Allow of either is enough; else it is denied. Anonymous requests live of the bucket's policy
alone, and not of a public one where the bucket restricts those. What a bucket's owner needs to get out of a policy that
locks everybody out is always allowed to root.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Final, Protocol

from qss.errors import CorruptData
from qss.s3 import operations as op
from qss.s3.access.actions import Need, needs_of
from qss.s3.access.context import Caller, Tags, need_context, request_context
from qss.s3.access.policy import Ask, Flavor, Policy, Principal, Verdict, is_public, kept_policy
from qss.s3.access.settings import PublicAccess, public_access
from qss.s3.errors import Code, S3Error

ROOT_ALWAYS: Final = frozenset({"s3:GetBucketPolicy", "s3:PutBucketPolicy", "s3:DeleteBucketPolicy"})
_POLICY: Final = op.Config.POLICY.document
_PUBLIC_ACCESS: Final = op.Config.PUBLIC_ACCESS.document
_EXISTING_TAG: Final = "s3:existingobjecttag/"


class Users(Protocol):
    """Who the access keys belong to."""

    def principal_of(self, access_key: str) -> Principal | None:
        """None: there is no such key, or it is disabled."""
        ...

    def policies_of(self, principal: Principal) -> Sequence[Policy]: ...


class Buckets(Protocol):
    """What the gate asks of a backend."""

    async def get_document(self, bucket: str, name: str) -> bytes | None:
        """Raises NO_SUCH_BUCKET."""
        ...


Clock = Callable[[], int]
TagsOf = Callable[[str, str, str | None], Awaitable[Tags]]
"""(bucket, key, version) → tags of what is there; raises S3Error when there is nothing."""


@dataclass(frozen=True, slots=True)
class _Bucket:
    policy: Policy | None
    public_access: PublicAccess
    broken: bool = False  # its policy cannot be read: nobody but root gets in


_NO_POLICY: Final = _Bucket(None, PublicAccess())


class Gate:
    """Decides. An `Authorizer` for the S3 service; other fronts call `allow` with an operation of their own making."""

    def __init__(self, users: Users, buckets: Buckets, tags_of: TagsOf, now_ns: Clock) -> None:
        self._users = users
        self._buckets = buckets
        self._tags_of = tags_of
        self._now_ns = now_ns

    async def __call__(self, caller: Caller, operation: op.Operation) -> None:
        """Raise S3Error ACCESS_DENIED unless all that the operation needs is allowed."""
        key = caller.access_key
        principal = None if key is None else self._users.principal_of(key)
        if key is not None and principal is None:
            raise S3Error(Code.INVALID_ACCESS_KEY)
        needs = needs_of(operation, caller.head.headers)
        if needs is None:
            if principal is None or not principal.is_root:
                raise S3Error(Code.ACCESS_DENIED)
            return
        if not needs and principal is None and not await self._has_policy(operation):
            raise S3Error(Code.ACCESS_DENIED)
        base: dict[str, tuple[str, ...]] | None = None
        for need in needs:
            bucket = await self._bucket(need.bucket)
            if principal is not None and principal.is_root and bucket.policy is None and not bucket.broken:
                continue
            if base is None:
                base = request_context(caller, principal, operation, self._now_ns())
            if not await self._allowed(principal, need, bucket, base):
                raise S3Error(Code.ACCESS_DENIED)

    async def _allowed(
        self, principal: Principal | None, need: Need, bucket: _Bucket, base: Mapping[str, tuple[str, ...]]
    ) -> bool:
        own = () if principal is None else self._users.policies_of(principal)
        policies = [*own, *(() if bucket.policy is None else (bucket.policy,))]
        existing = await self._existing(need, policies)
        ask = Ask(principal, need.action, need.resource, need_context(base, need, existing))
        mine = Verdict.NOTHING
        for policy in own:
            mine = mine.joined(policy.decide(ask))
        theirs = Verdict.NOTHING if bucket.policy is None else bucket.policy.decide(ask)
        if principal is not None and principal.is_root:
            return need.action in ROOT_ALWAYS or theirs is not Verdict.DENY
        if bucket.broken or Verdict.DENY in (mine, theirs):
            return False
        if principal is None and bucket.public_access.restrict_public_buckets and bucket.policy is not None:
            theirs = Verdict.NOTHING if is_public(bucket.policy) else theirs
        return Verdict.ALLOW in (mine, theirs)

    async def _existing(self, need: Need, policies: Sequence[Policy]) -> Tags:
        """Tags of the object, if a policy asks for them."""
        if need.key is None or not any(policy.mentions(_EXISTING_TAG) for policy in policies):
            return ()
        try:
            return await self._tags_of(need.bucket, need.key, need.version_id)
        except S3Error:
            return ()

    async def _bucket(self, name: str) -> _Bucket:
        if not name:
            return _NO_POLICY
        try:
            document = await self._buckets.get_document(name, _POLICY)
            if document is None:
                return _NO_POLICY
            switches = public_access(await self._buckets.get_document(name, _PUBLIC_ACCESS))
        except S3Error as error:
            if error.code is not Code.NO_SUCH_BUCKET:
                raise
            return _NO_POLICY
        try:
            return _Bucket(kept_policy(document, Flavor.BUCKET, name), switches)
        except CorruptData:
            return _Bucket(None, PublicAccess(), broken=True)

    async def _has_policy(self, operation: op.Operation) -> bool:
        return (await self._bucket(getattr(operation, "bucket", ""))).policy is not None
