"""Shares as the console gives them: each user's own, of what the user may read. Root's are everybody's."""

from __future__ import annotations

from typing import TYPE_CHECKING

from qss.s3 import operations as op
from qss.s3.errors import Code, S3Error
from qss.trove.admin_shares import NEW_SHARE, ShareRoutes
from qss.trove.routes import Answer, answer, check, done, json_object
from qss.trove.shares import Share

if TYPE_CHECKING:
    from qss.s3.access.policy import Principal
    from qss.s3.message import RequestHead
    from qss.s3.server import S3Service
    from qss.trove.users import Users


class OwnShares:
    """A share acts for the access key with which it was made: it ends when the key does, and never opens more than
    that user may read when it is used."""

    def __init__(self, routes: ShareRoutes, service: S3Service, users: Users) -> None:
        self._routes = routes
        self._service = service
        self._users = users

    async def answer(self, access_key: str, head: RequestHead, name: str, body: bytes) -> Answer:
        """`name`: of a share, or nothing. Raises S3Error and other QssErrors."""
        principal = self._users.principal_of(access_key)
        if principal is None:
            raise S3Error(Code.INVALID_ACCESS_KEY)
        match head.method, bool(name):
            case "GET", False:
                found = [each for each in self._routes.shares.all() if self._owns(principal, each)]
                return answer({"shares": [self._routes.value(each) for each in found]})
            case "POST", False:
                return await self._make(access_key, principal, head, body)
            case "DELETE", True:
                share = self._routes.shares.get(name)
                if share is None or not self._owns(principal, share):
                    raise S3Error(Code.NOT_FOUND, "There is no such share.")
                await self._routes.shares.revoke(name)
                return done()
        raise S3Error(Code.METHOD_NOT_ALLOWED)

    async def _make(self, access_key: str, principal: Principal, head: RequestHead, body: bytes) -> Answer:
        wanted = json_object(body)
        check(NEW_SHARE, wanted, "the body")
        await self._service.permit(access_key, op.GetObject(wanted["bucket"], wanted["key"], head=False), head)
        return await self._routes.make(wanted, None if principal.is_root else access_key)

    def _owns(self, principal: Principal, share: Share) -> bool:
        return principal.is_root or (share.user is not None and self._users.principal_of(share.user) == principal)
