"""The JSON admin API, an RSGI application. A bearer token for everything but health and the API's own description.

GET /openapi.json says what there is: it is made from the routes, and a request is checked against what it says. The
routes of buckets, shares and the like stand in modules of their own and are handed in.
"""

from __future__ import annotations

import hmac
import logging
from collections.abc import Sequence
from typing import TYPE_CHECKING, Final

from qss.errors import QssError
from qss.s3.backend import VersionsQuery
from qss.s3.errors import S3Error, to_s3
from qss.s3.exchange import Exchange
from qss.s3.message import parse_query
from qss.trove.compaction import compact_one
from qss.trove.health import Health
from qss.trove.metrics import Source, render
from qss.trove.node import Node
from qss.trove.openapi import describe
from qss.trove.routes import Answer, Asked, Route, Schema, answer, body_of, find, read_body
from qss.trove.verify import verify_all, verify_object, verify_page

if TYPE_CHECKING:
    from qss.s3.rsgi import HttpProtocol, Scope

log = logging.getLogger(__name__)

REQUEST_BYTES_MAX: Final = 64 * 1024
API_VERSION: Final = "1"
_METRICS: Final = "text/plain; version=0.0.4; charset=utf-8"
_TEXT: Final = {"type": "string"}


def _refusal(status: int, text: str, code: str = "") -> Answer:
    return answer({"error": text} | ({"code": code} if code else {}), status)


class Admin:
    """Routes and answers; knows nothing of HTTP but method, path, query, headers and body."""

    def __init__(
        self,
        node: Node,
        token: str,
        more: Sequence[Route] = (),
        health: Health | None = None,
        sources: Sequence[Source] = (),
    ) -> None:
        """`more`: routes beside its own. `sources`: metrics beside the node's."""
        self._node = node
        self._sources = sources
        self._token = token
        self.health = health or Health()
        self.routes: tuple[Route, ...] = (*self._own(), *more)

    def _own(self) -> list[Route]:
        page: dict[str, Schema] = {
            "prefix": _TEXT,
            "after": _TEXT,
            "after_version": _TEXT,
            "limit": {"type": "integer", "minimum": 1, "maximum": 1000},
        }
        verify = body_of({"bucket": _TEXT, "key": _TEXT, "version": _TEXT} | page)
        return [
            Route("GET", "/health/live", "The process answers", self._live, public=True),
            Route("GET", "/health/ready", "Requests are served", self._ready, public=True, errors=(503,)),
            Route("GET", "/openapi.json", "This description", self._describe, public=True),
            Route("GET", "/status", "Objects, bytes, volumes, drives, damage, counters", self._status),
            Route("GET", "/drives", "The data directories and the room they have", self._drives),
            Route("GET", "/metrics", "For Prometheus", self._metrics, kind=_METRICS),
            Route(
                "POST",
                "/verify",
                "Read and compare every byte of one object, of a bucket, or (with nothing) of all, in place. One object"
                " answers with its BLAKE3 and the root of its table of 64 KiB hashes; a bucket with a `limit` likewise"
                " for each version of each object of a page",
                self._verify,
                takes=verify,
                errors=(404,),
            ),
            Route("POST", "/compact", "Give dead space back now", self._compact, takes=body_of({})),
        ]

    async def answer(
        self, method: str, path: str, authorization: str, body: bytes, query: str = "", exchange: Exchange | None = None
    ) -> tuple[int, str, bytes]:
        """Status, content type and body. `exchange` learns which route it was."""
        found = await self._answer(method, path, authorization, body, query, exchange or Exchange())
        return found.status, found.kind, found.body

    async def _answer(
        self, method: str, path: str, authorization: str, body: bytes, query: str, exchange: Exchange
    ) -> Answer:
        health = self.health.answer(method, path) if path.startswith("/-/") else None
        if health is not None:
            return health
        found = find(self.routes, method, path)
        public = not isinstance(found, int) and found[0].public
        if not public and not self.admits(authorization):
            return _refusal(401, "give the admin token: Authorization: Bearer …")
        if isinstance(found, int):
            return _refusal(found, "there is nothing here" if found == 404 else "not with this method")
        route, arguments = found
        exchange.operation = f"{route.method} {route.path}"
        try:
            asked = Asked(arguments, dict(parse_query(query)), read_body(route, body))
            return await route.handler(asked)
        except S3Error as error:
            return _refusal(error.code.status, str(error), error.code.wire)
        except QssError as error:
            return _refusal(max(to_s3(error).code.status, 500), str(error))
        except Exception:
            log.exception("the admin API failed at %s %s", method, route.path)
            return _refusal(500, "something went wrong inside; the log of the node says what")

    def admits(self, authorization: str) -> bool:
        """Is this the admin token's Authorization header?"""
        return hmac.compare_digest(authorization.encode(), f"Bearer {self._token}".encode())

    async def _live(self, _: Asked) -> Answer:
        return self.health.live()

    async def _ready(self, _: Asked) -> Answer:
        return self.health.is_ready()

    async def _describe(self, _: Asked) -> Answer:
        return answer(describe(self.routes, "Trove admin API", API_VERSION))

    async def _status(self, _: Asked) -> Answer:
        return answer(self._node.status() | {"ready": self.health.ready})

    async def _drives(self, _: Asked) -> Answer:
        return answer({"drives": self._node.status()["drives"]})

    async def _metrics(self, _: Asked) -> Answer:
        return Answer(200, render(self._node, self._sources), _METRICS)

    async def _compact(self, _: Asked) -> Answer:
        return answer({"freed_bytes": await compact_one(self._node.engine, garbage=0.0, least_bytes=0)})

    async def _verify(self, asked: Asked) -> Answer:
        bucket, key = asked.body.get("bucket"), asked.body.get("key")
        if key is not None and bucket is None:
            return _refusal(400, "give bucket and key as text, bucket alone, or nothing")
        if key is not None:
            return answer(await verify_object(self._node.store, str(bucket), key, asked.body.get("version")))
        if "limit" in asked.body:
            if bucket is None:
                return _refusal(400, "limit goes with a bucket")
            prefix, after = asked.body.get("prefix", ""), asked.body.get("after", "")
            version = asked.body.get("after_version")
            query = VersionsQuery(bucket, prefix, "", after, version, asked.body["limit"])
            return answer(await verify_page(self._node.store, query))
        return answer(await verify_all(self._node.store, bucket))


class AdminApp:
    """RSGI around `Admin`."""

    def __init__(self, admin: Admin) -> None:
        self._admin = admin

    async def __call__(self, scope: Scope, protocol: HttpProtocol) -> None:
        body = await body_within(protocol, REQUEST_BYTES_MAX)
        if body is None:
            protocol.response_empty(413, [])
            return
        authorization = scope.headers.get("authorization") or ""
        status, kind, content = await self._admin.answer(
            scope.method, scope.path, authorization, body, scope.query_string, protocol.exchange
        )
        protocol.response_bytes(status, [("content-type", kind), *HEADERS], content)


HEADERS: Final = (("cache-control", "no-store"), ("x-content-type-options", "nosniff"))


async def body_within(protocol: HttpProtocol, most: int) -> bytes | None:
    """A small body whole; None when it has more than `most` bytes."""
    body = b""
    async for chunk in protocol:
        body += chunk
        if len(body) > most:
            return None
    return body
