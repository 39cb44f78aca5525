"""The web console, an RSGI application: a page out of this package, and what it asks for, behind a session cookie.

GET /, /app.js, /style.css …          the page: static, no other host is ever asked (Content-Security-Policy)
POST GET DELETE /api/session          sign in with the admin token, ask, sign out
/api/admin/…, /api/files/…            the admin API and the file API

A cookie goes along with every request a browser makes, so whatever changes something must carry a header that no other
site's page can send, and the cookie is never sent on their behalf (SameSite=Strict). What users have stored is only
ever saved, never shown: it would run with the console's rights.
"""

from __future__ import annotations

import hmac
import json
from collections.abc import Mapping
from dataclasses import replace
from http.cookies import CookieError, SimpleCookie
from importlib import resources
from typing import TYPE_CHECKING, Final

from blake3 import blake3

from qss.s3.errors import Code, S3Error
from qss.s3.message import RequestHead, Response
from qss.s3.rsgi import head_of, send
from qss.trove.admin import HEADERS, REQUEST_BYTES_MAX, Admin, body_within
from qss.trove.files import Files, answered, as_attachment
from qss.trove.health import Health
from qss.trove.routes import JSON, answer
from qss.trove.sessions import LASTS_S, Sessions
from qss.trove.tokens import FileToken

if TYPE_CHECKING:
    from qss.s3.rsgi import HttpProtocol, Scope

COOKIE: Final = "trove_session"
MARK: Final = "x-trove-console"
"""A header that a page of another site cannot send without being asked for leave, which it never gets."""
CONTENT_POLICY: Final = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; connect-src 'self'; base-uri 'none'; "
    "form-action 'none'; frame-ancestors 'none'; require-trusted-types-for 'script'; trusted-types 'none'"
)
PAGE_HEADERS: Final = (
    ("content-security-policy", CONTENT_POLICY),
    ("x-content-type-options", "nosniff"),
    ("referrer-policy", "no-referrer"),
    ("cross-origin-opener-policy", "same-origin"),
    ("cross-origin-resource-policy", "same-origin"),
    ("permissions-policy", "camera=(), geolocation=(), microphone=()"),
    ("cache-control", "no-cache"),
)
_KINDS: Final = {
    "css": "text/css; charset=utf-8",
    "html": "text/html; charset=utf-8",
    "js": "text/javascript; charset=utf-8",
    "svg": "image/svg+xml",
}
_OPERATOR: Final = FileToken("console", "the console")


def load_pages() -> dict[str, Response]:
    """Path → answer, of what stands in qss/trove/web."""
    pages: dict[str, Response] = {}
    for file in resources.files("qss.trove").joinpath("web").iterdir():
        kind = _KINDS.get(file.name.rpartition(".")[2])
        if kind is None:
            continue
        content = file.read_bytes()
        etag = f'"{blake3(content).hexdigest(16)}"'
        page = Response(200, (("content-type", kind), ("etag", etag), *PAGE_HEADERS), content, length=len(content))
        pages["/" if file.name == "index.html" else f"/{file.name}"] = page
    return pages


class ConsoleApp:
    """Made for one node. `token` is the admin token."""

    def __init__(self, admin: Admin, files: Files, sessions: Sessions, token: str, health: Health) -> None:
        self._admin = admin
        self._files = files
        self._sessions = sessions
        self._token = token
        self._health = health
        self._pages = load_pages()

    async def __call__(self, scope: Scope, protocol: HttpProtocol) -> None:
        head = head_of(scope)
        health = self._health.answer(head.method, head.path)
        if health is not None:
            protocol.exchange.operation = "Health"
            response = Response(health.status, (("content-type", JSON),), health.body)
        else:
            response = await answered(self._answer(head, protocol), head)
        try:
            await send(response, head.method, protocol)
        finally:
            if response.close is not None:
                await response.close()

    async def _answer(self, head: RequestHead, protocol: HttpProtocol) -> Response:
        if not head.path.startswith("/api/"):
            protocol.exchange.operation = "Page"
            return self._page(head)
        self._check_origin(head)
        if head.path == "/api/session":
            protocol.exchange.operation = f"{head.method} session"
            return await self._session(head, protocol)
        if not self._sessions.holds(_secret(head.headers)):
            return _json(401, {"error": "sign in first"})
        protocol.exchange.user = _OPERATOR.id
        area, _, rest = head.path.removeprefix("/api/").partition("/")
        if area == "admin":
            return await self._ask_admin(head, f"/{rest}", protocol)
        if area == "files" and head.method in ("GET", "HEAD", "PUT", "DELETE"):
            response = await self._files.perform(_OPERATOR, head, rest, protocol)
            return as_attachment(response, rest) if head.method == "GET" and "/" in rest else response
        raise S3Error(Code.NOT_FOUND)

    def _page(self, head: RequestHead) -> Response:
        page = self._pages.get(head.path)
        if page is None:
            raise S3Error(Code.NOT_FOUND)
        if head.method not in ("GET", "HEAD"):
            raise S3Error(Code.METHOD_NOT_ALLOWED)
        if head.headers.get("if-none-match") == dict(page.headers)["etag"]:
            return replace(page, status=304, body=b"", length=None)
        return replace(page, body=b"") if head.method == "HEAD" else page

    def _check_origin(self, head: RequestHead) -> None:
        """Only our own page may ask; a browser says where a request comes from, and only our page sends the mark."""
        if head.headers.get("sec-fetch-site", "same-origin") not in ("same-origin", "none"):
            raise S3Error(Code.ACCESS_DENIED, "Another site's page may not do this.")
        if head.method not in ("GET", "HEAD") and MARK not in head.headers:
            raise S3Error(Code.ACCESS_DENIED, f"The header {MARK} is missing.")

    async def _session(self, head: RequestHead, protocol: HttpProtocol) -> Response:
        secret = _secret(head.headers)
        if head.method == "GET":
            return _json(200, {"signed_in": self._sessions.holds(secret)})
        if head.method == "DELETE":
            self._sessions.end(secret)
            return _json(200, {"signed_in": False}, _cookie("", 0, secure=head.secure))
        if head.method != "POST":
            raise S3Error(Code.METHOD_NOT_ALLOWED)
        self._sessions.check_patience()
        if not hmac.compare_digest(await _given_token(protocol), self._token.encode()):
            self._sessions.note_failure()
            return _json(401, {"error": "this is not the admin token of this node"})
        return _json(200, {"signed_in": True}, _cookie(self._sessions.begin(), LASTS_S, secure=head.secure))

    async def _ask_admin(self, head: RequestHead, path: str, protocol: HttpProtocol) -> Response:
        body = await body_within(protocol, REQUEST_BYTES_MAX)
        if body is None:
            raise S3Error(Code.ENTITY_TOO_LARGE)
        status, kind, content = await self._admin.answer(
            head.method, path, f"Bearer {self._token}", body, head.query, protocol.exchange
        )
        return Response(status, (("content-type", kind), *HEADERS), content)


async def _given_token(protocol: HttpProtocol) -> bytes:
    """What is to be the token, of the body {"token": …}; b"" for anything else."""
    body = await body_within(protocol, REQUEST_BYTES_MAX)
    try:
        value = json.loads(body or b"")
    except (ValueError, RecursionError):
        return b""
    token = value.get("token") if isinstance(value, dict) else None
    return token.encode(errors="replace") if isinstance(token, str) else b""


def _secret(headers: Mapping[str, str]) -> str:
    try:
        cookie = SimpleCookie(headers.get("cookie", "")).get(COOKIE)
    except CookieError:
        return ""
    return "" if cookie is None else cookie.value


def _cookie(secret: str, lasts_s: int, *, secure: bool) -> tuple[str, str]:
    text = f"{COOKIE}={secret}; Path=/; Max-Age={lasts_s}; HttpOnly; SameSite=Strict"
    return "set-cookie", f"{text}; Secure" if secure else text


def _json(status: int, value: object, *headers: tuple[str, str]) -> Response:
    content = answer(value).body
    return Response(status, (("content-type", JSON), *HEADERS, *headers), content, length=len(content))
