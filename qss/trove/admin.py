"""The JSON admin API, an RSGI application. A bearer token for everything but health.

GET  /health/live   200 while the process answers        GET /health/ready  200 when requests are served
GET  /status        objects, bytes, volumes, drives, damage, counters
POST /verify        {"bucket", "key"} one object, {"bucket"} or {} all: reads and compares every byte in place
POST /compact       give dead space back now
GET  /metrics       for Prometheus
"""

from __future__ import annotations

import asyncio
import hmac
import json
from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING, Any, Final

from blake3 import blake3

from qss.errors import Damaged, QssError
from qss.s3.backend import VersionsQuery
from qss.s3.errors import S3Error
from qss.trove.compaction import compact_one
from qss.trove.metrics import render
from qss.trove.node import Node

if TYPE_CHECKING:
    from qss.s3.rsgi import HttpProtocol, Scope

Answer = tuple[int, str, bytes]
REQUEST_BYTES_MAX: Final = 64 * 1024
_JSON: Final = "application/json"


def _json(status: int, value: Any) -> Answer:
    return status, _JSON, json.dumps(value).encode()


class Admin:
    """Routes and answers; knows nothing of HTTP but method, path, headers and body."""

    def __init__(self, node: Node, token: str) -> None:
        self._node = node
        self._token = token
        self.ready = False
        self._routes: dict[tuple[str, str], Callable[[dict[str, Any]], Awaitable[Answer]]] = {
            ("GET", "/status"): self._status,
            ("GET", "/metrics"): self._metrics,
            ("POST", "/verify"): self._verify,
            ("POST", "/compact"): self._compact,
        }

    async def answer(self, method: str, path: str, authorization: str, body: bytes) -> Answer:
        """Status, content type and body."""
        if path == "/health/live" and method == "GET":
            return _json(200, {"live": True})
        if path == "/health/ready" and method == "GET":
            return _json(200 if self.ready else 503, {"ready": self.ready})
        expected = f"Bearer {self._token}".encode()
        if not hmac.compare_digest(authorization.encode(), expected):
            return _json(401, {"error": "give the admin token: Authorization: Bearer …"})
        route = self._routes.get((method, path))
        if route is None:
            known = any(path == each for _, each in self._routes)
            return _json(405 if known else 404, {"error": "there is nothing here"})
        try:
            value = json.loads(body) if body else {}
        except (ValueError, RecursionError):
            return _json(400, {"error": "the body is not JSON"})
        if not isinstance(value, dict):
            return _json(400, {"error": "the body is not a JSON object"})
        try:
            return await route(value)
        except S3Error as error:
            return _json(error.code.status, {"error": str(error)})
        except QssError as error:
            return _json(500, {"error": str(error)})

    async def _status(self, _body: dict[str, Any]) -> Answer:
        return _json(200, self._node.status() | {"ready": self.ready})

    async def _metrics(self, _body: dict[str, Any]) -> Answer:
        return 200, "text/plain; version=0.0.4; charset=utf-8", render(self._node)

    async def _compact(self, _body: dict[str, Any]) -> Answer:
        return _json(200, {"freed_bytes": await compact_one(self._node.engine, garbage=0.0, least_bytes=0)})

    async def _verify(self, body: dict[str, Any]) -> Answer:
        bucket, key = body.get("bucket"), body.get("key")
        if key is not None and isinstance(key, str) and isinstance(bucket, str):
            return _json(200, await self.verify_object(bucket, key))
        if key is not None or not isinstance(bucket, str | None):
            return _json(400, {"error": "give bucket and key as text, bucket alone, or nothing"})
        return _json(200, await self.verify_all(bucket))

    async def verify_object(self, bucket: str, key: str, version_id: str | None = None) -> dict[str, Any]:
        """Read one object, or one version, whole. Its BLAKE3 if it verifies, what is wrong if not."""
        digest, size = blake3(), 0
        try:
            reader = await self._node.store.open(bucket, key, version_id)
            try:
                async for chunk in reader.chunks(0, reader.info.size):
                    digest.update(chunk)
                    size += len(chunk)
                    await asyncio.sleep(0)
            finally:
                await reader.aclose()
        except Damaged as error:
            self._node.store.records.flush_damage()
            return {"bucket": bucket, "key": key, "sound": False, "error": str(error)}
        return {"bucket": bucket, "key": key, "sound": True, "bytes": size, "blake3": digest.hexdigest()}

    async def verify_all(self, only: str | None) -> dict[str, Any]:
        """Read every version of every object whole, a page at a time."""
        sound, damaged = 0, []
        for bucket in await self._node.store.list_buckets():
            if only is not None and bucket.name != only:
                continue
            query: VersionsQuery | None = VersionsQuery(bucket.name)
            while query is not None:
                page = await self._node.store.list_versions(query)
                for each in page.entries:
                    if each.marker:
                        continue
                    name = each.object
                    result = await self.verify_object(bucket.name, name.key, name.version_id)
                    sound += result["sound"]
                    if not result["sound"]:
                        damaged.append(result)
                query = None if page.next_after is None else VersionsQuery(bucket.name, "", "", *page.next_after)
        return {"sound": sound, "damaged": damaged}


class AdminApp:
    """RSGI around `Admin`."""

    def __init__(self, admin: Admin) -> None:
        self._admin = admin

    async def __call__(self, scope: Scope, protocol: HttpProtocol) -> None:
        body = b""
        async for chunk in protocol:
            body += chunk
            if len(body) > REQUEST_BYTES_MAX:
                protocol.response_empty(413, [])
                return
        authorization = scope.headers.get("authorization") or ""
        status, kind, answer = await self._admin.answer(scope.method, scope.path, authorization, body)
        protocol.response_bytes(status, [("content-type", kind), ("cache-control", "no-store")], answer)
