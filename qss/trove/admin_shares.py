"""Routes of the admin API for shares and for tokens of the file API."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import asdict
from typing import Any, Final
from urllib.parse import quote

from qss.s3.errors import Code, S3Error
from qss.trove.node import Node
from qss.trove.routes import DONE, Answer, Asked, Route, Schema, answer, body_of, done
from qss.trove.shares import PATH, Share, Shares
from qss.trove.tokens import RIGHTS, FileToken

LASTS_S_MAX: Final = 10 * 365 * 86_400
SHARE_LASTS_S: Final = 7 * 86_400
_TEXT: Final[Schema] = {"type": "string", "maxLength": 1024}
_LASTS: Final[Schema] = {"type": "integer", "minimum": 1, "maximum": LASTS_S_MAX}
NEW_SHARE: Final = body_of(
    {
        "bucket": _TEXT,
        "key": {**_TEXT, "minLength": 1},
        "lasts_s": _LASTS,
        "uses_max": {"type": "integer", "minimum": 0, "maximum": 2**31},
        "note": {"type": "string", "maxLength": 200},
    },
    "bucket",
    "key",
)
_NEW_TOKEN: Final = body_of(
    {
        "name": {"type": "string", "minLength": 1, "maxLength": 200},
        "may": {"type": "array", "items": {"type": "string", "enum": list(RIGHTS)}, "maxItems": len(RIGHTS)},
        "bucket": {"type": ["string", "null"], "maxLength": 63},
        "prefix": _TEXT,
        "lasts_s": {**_LASTS, "type": ["integer", "null"]},
        "user": {"type": ["string", "null"], "maxLength": 128},
    },
    "name",
)
_ONE: Final[Schema] = {"type": "object", "properties": {"id": {"type": "string"}}, "required": ["id"]}


def _all(name: str) -> Schema:
    return {"type": "object", "properties": {name: {"type": "array", "items": _ONE}}, "required": [name]}


class ShareRoutes:
    """`files_url` tells where the file API is reached, without a slash behind; "" when it is off."""

    def __init__(self, node: Node, files_url: Callable[[], str]) -> None:
        self._node = node
        self._files_url = files_url

    @property
    def routes(self) -> list[Route]:
        share, token = "/shares/{share}", "/tokens/{token}"
        told = (404, 503)
        return [
            Route("GET", "/shares", "All shares, without their tokens", self._shares, gives=_all("shares")),
            Route(
                "POST",
                "/shares",
                "Share one object; the token is told in this answer and never again",
                self._share,
                takes=NEW_SHARE,
                gives=_ONE,
                status=201,
                errors=told,
            ),
            Route("GET", share, "One share", self._get_share, gives=_ONE, errors=(404,)),
            Route("DELETE", share, "Revoke a share", self._revoke, gives=DONE, errors=told),
            Route(
                "GET",
                "/tokens",
                "All tokens of the file API, without their secrets",
                self._tokens,
                gives=_all("tokens"),
            ),
            Route(
                "POST",
                "/tokens",
                "Make a token for the file API; it is told in this answer and never again",
                self._token,
                takes=_NEW_TOKEN,
                gives=_ONE,
                status=201,
                errors=(503,),
            ),
            Route("DELETE", token, "Remove a token", self._remove, gives=DONE, errors=told),
        ]

    async def _shares(self, _: Asked) -> Answer:
        return answer({"shares": [self.value(each) for each in self._node.shares.all()]})

    @property
    def shares(self) -> Shares:
        return self._node.shares

    async def _share(self, asked: Asked) -> Answer:
        return await self.make(asked.body, None)

    async def make(self, body: Mapping[str, Any], user: str | None) -> Answer:
        """A share as NEW_SHARE asks for it. `user`: the access key it acts for; None: the node's own."""
        await self._node.store.head(body["bucket"], body["key"])  # NO_SUCH_KEY now rather than for whom it is sent to
        lasts_s, uses_max = body.get("lasts_s", SHARE_LASTS_S), body.get("uses_max", 0)
        grant = body["bucket"], body["key"]
        share, token = await self._node.shares.make(*grant, lasts_s, uses_max, body.get("note", ""), user)
        name = quote(share.grant.key.rstrip("/").rpartition("/")[2], safe="")
        path = f"{PATH}{token}/{name}"
        url = self._files_url()
        told = {"token": token, "path": path, "url": f"{url}{path}" if url else None}
        return answer(self.value(share) | told, 201)

    async def _get_share(self, asked: Asked) -> Answer:
        share = self._node.shares.get(asked.args["share"])
        if share is None:
            raise S3Error(Code.NOT_FOUND, "There is no such share.")
        return answer(self.value(share))

    async def _revoke(self, asked: Asked) -> Answer:
        if not await self._node.shares.revoke(asked.args["share"]):
            raise S3Error(Code.NOT_FOUND, "There is no such share.")
        return done()

    def value(self, share: Share) -> dict[str, Any]:
        """A share as JSON, without its token."""
        now_s = self._node.options.host.clock.now_ns() // 1_000_000_000
        return {
            "id": share.id,
            "note": share.note,
            "user": share.user,
            "created_s": share.created_s,
            "uses": share.uses,
            "holds": now_s < share.grant.expires_s and not share.is_used_up(),
            **asdict(share.grant),
        }

    async def _tokens(self, _: Asked) -> Answer:
        return answer({"tokens": [_token_value(each) for each in self._node.tokens.all()]})

    async def _token(self, asked: Asked) -> Answer:
        body = asked.body
        token, text = await self._node.tokens.make(
            body["name"],
            frozenset(body.get("may", ["read"])),
            bucket=body.get("bucket"),
            prefix=body.get("prefix", ""),
            lasts_s=body.get("lasts_s"),
            user=body.get("user"),
        )
        return answer(_token_value(token) | {"token": text}, 201)

    async def _remove(self, asked: Asked) -> Answer:
        if not await self._node.tokens.remove(asked.args["token"]):
            raise S3Error(Code.NOT_FOUND, "There is no such token.")
        return done()


def _token_value(token: FileToken) -> dict[str, Any]:
    return asdict(token) | {"may": sorted(token.may)}
