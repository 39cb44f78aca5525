"""The web console, an RSGI application: a page out of this package, and what it asks for, behind a session cookie.

GET /, /app.js, /style.css …          the page: static, no other host is ever asked (Content-Security-Policy)
POST GET DELETE /api/session          sign in with an access key and its secret key, ask who one is, sign out
/api/s3/BUCKET/KEY?…                  S3, the session in the place of a signature: the same parser, gate and service
/api/shares[/ID]                      one's own shares
/api/admin/…                          the admin API, for root
GET HEAD /s/TOKEN/…                   what a share gives, to anybody

A cookie goes along with every request a browser makes, so whatever changes something must carry a mark that only our
page knows, and the cookie is never sent on other pages' behalf (SameSite=Strict). What users have stored is only ever
saved, never shown: it would run with the console's rights.
"""

from __future__ import annotations

import hmac
import json
from collections.abc import Mapping
from dataclasses import dataclass, replace
from http.cookies import CookieError, SimpleCookie
from typing import TYPE_CHECKING, Any, Final

from qss.s3.errors import Code, S3Error
from qss.s3.message import RequestHead, Response
from qss.s3.parse import is_form, parse, split_path
from qss.s3.rsgi import raw_body
from qss.s3.scalars import number_of
from qss.s3.server import S3Service
from qss.trove.admin import HEADERS, REQUEST_BYTES_MAX, Admin, body_within
from qss.trove.console_pages import Pages
from qss.trove.console_shares import OwnShares
from qss.trove.files import GUARDS, FilesApp, as_attachment, passed, respond
from qss.trove.health import Health
from qss.trove.routes import JSON, answer
from qss.trove.sessions import LASTS_S, Session, Sessions
from qss.trove.shares import PATH
from qss.trove.users import Users

if TYPE_CHECKING:
    from qss.s3.rsgi import HttpProtocol, Scope

COOKIE: Final = "trove_session"
MARK: Final = "x-trove-mark"
"""A page of another site cannot send this header without being asked for leave, which it never gets; and when somebody
is signed in, its value is the session's."""
_MEANT: Final = ("x-amz-copy-source", "x-amz-metadata-directive", "transfer-encoding")
"""Headers that reach the S3 operation beside those of a file: an old version is brought back by a copy."""


@dataclass(frozen=True, slots=True)
class Behind:
    """What the console is a face of. `token` is the admin token."""

    admin: Admin
    token: str
    service: S3Service
    users: Users
    shares: OwnShares
    files: FilesApp
    health: Health


class ConsoleApp:
    """Made for one node."""

    def __init__(self, behind: Behind, sessions: Sessions) -> None:
        self._behind = behind
        self._sessions = sessions
        self._pages = Pages()

    async def __call__(self, scope: Scope, protocol: HttpProtocol) -> None:
        await respond(scope, protocol, self._behind.health, self._answer)

    async def _answer(self, head: RequestHead, protocol: HttpProtocol) -> Response:
        if head.path.startswith(PATH):
            return await self._behind.files.shared(head, protocol)
        if not head.path.startswith("/api/"):
            protocol.exchange.operation = "Page"
            return self._pages.answer(head)
        if head.headers.get("sec-fetch-site", "same-origin") not in ("same-origin", "none"):
            raise S3Error(Code.ACCESS_DENIED, "Another site's page may not do this.")
        if head.path == "/api/session":
            protocol.exchange.operation = "Session"
            return await self._session(head, protocol)
        session = self._known(head)
        if session is None:
            return _json(401, {"error": "Sign in first."})
        protocol.exchange.user = session.access_key
        _check_mark(head, session)
        area, _, rest = head.path.removeprefix("/api/").partition("/")
        match area:
            case "s3":
                return await self._ask_s3(session, head, rest, protocol)
            case "shares":
                protocol.exchange.operation = "Shares"
                body = await _small_body(protocol)
                found = await self._behind.shares.answer(session.access_key, head, rest, body)
                return Response(found.status, (("content-type", found.kind), *HEADERS), found.body)
            case "admin":
                return await self._ask_admin(session, head, f"/{rest}", protocol)
        raise S3Error(Code.NOT_FOUND)

    def _known(self, head: RequestHead) -> Session | None:
        """The session of a request. It ends with its key."""
        session = self._sessions.find(_secret(head))
        if session is None or self._behind.users.principal_of(session.access_key) is None:
            return None
        return session

    # -- signing in and out
    async def _session(self, head: RequestHead, protocol: HttpProtocol) -> Response:
        session = self._known(head)
        if head.method == "GET":
            return _json(200, {"signed_in": False} if session is None else self._told(session))
        if head.method == "DELETE":
            if session is not None:
                _check_mark(head, session)
                self._sessions.end(_secret(head))
            return _json(200, {"signed_in": False}, _cookie(head, "", 0))
        if head.method != "POST":
            raise S3Error(Code.METHOD_NOT_ALLOWED)
        if MARK not in head.headers:
            raise S3Error(Code.ACCESS_DENIED, f"The header {MARK} is missing.")
        self._sessions.check_patience(head.client)
        access_key, secret_key = _given(await _small_body(protocol))
        known = self._behind.users.secret_of(access_key)
        if not hmac.compare_digest(secret_key.encode(), (known or "").encode()) or known is None:
            self._sessions.note_failure(head.client)
            return _json(401, {"error": "This access key and this secret key do not belong together."})
        protocol.exchange.user = access_key
        self._sessions.end(_secret(head))
        secret, session = self._sessions.begin(access_key)
        return _json(200, self._told(session), _cookie(head, secret, LASTS_S))

    def _told(self, session: Session) -> dict[str, Any]:
        principal = self._behind.users.principal_of(session.access_key)
        name = principal.name if principal is not None else ""
        told = {"signed_in": True, "access_key": session.access_key, "mark": session.mark}
        return told | {"user": name or "root", "is_root": not name, "ends_s": session.ends_ns // 1_000_000_000}

    # -- what is behind
    async def _ask_s3(self, session: Session, head: RequestHead, path: str, protocol: HttpProtocol) -> Response:
        """One S3 operation; XML as S3 gives it, errors as JSON."""
        kept = passed(head.headers) | {name: head.headers[name] for name in _MEANT if name in head.headers}
        head = replace(head, path=f"/{path}", headers=kept)
        bucket, key = split_path(head)
        if is_form(head, bucket, key):
            raise S3Error(Code.METHOD_NOT_ALLOWED)
        operation = parse(head)
        protocol.exchange.operation = type(operation).__name__
        service = self._behind.service
        response = await service.perform(session.access_key, operation, head, raw_body(head, protocol))
        response = response.and_headers(GUARDS)
        return as_attachment(response, key) if head.method == "GET" and key else _never_kept(response)

    async def _ask_admin(self, session: Session, head: RequestHead, path: str, protocol: HttpProtocol) -> Response:
        principal = self._behind.users.principal_of(session.access_key)
        if principal is None or not principal.is_root:
            raise S3Error(Code.ACCESS_DENIED, "This is for the administrator of the node.")
        body = await _small_body(protocol)
        bearer = f"Bearer {self._behind.token}"
        admin, exchange = self._behind.admin, protocol.exchange
        status, kind, content = await admin.answer(head.method, path, bearer, body, head.query, exchange)
        return Response(status, (("content-type", kind), *HEADERS), content)


def _check_mark(head: RequestHead, session: Session) -> None:
    if head.method not in ("GET", "HEAD") and not session.is_marked(head.headers.get(MARK, "")):
        raise S3Error(Code.ACCESS_DENIED, "This page is not the one that was signed in with: load it again.")


async def _small_body(protocol: HttpProtocol) -> bytes:
    body = await body_within(protocol, REQUEST_BYTES_MAX)
    if body is None:
        raise S3Error(Code.ENTITY_TOO_LARGE)
    return body


def _given(body: bytes) -> tuple[str, str]:
    """Access key and secret key of {"access_key": …, "secret_key": …}; empty for anything else."""
    try:
        value = json.loads(body)
        access_key, secret_key = value["access_key"], value["secret_key"]
    except (ValueError, RecursionError, KeyError, TypeError):
        return "", ""
    whole = isinstance(access_key, str) and isinstance(secret_key, str)
    return (access_key, secret_key) if whole and (access_key + secret_key).isascii() else ("", "")


def _cookie_name(head: RequestHead) -> str:
    """With the port: browsers keep one jar for all ports of a host, and there may be a node on each."""
    port = head.headers.get("host", "").rpartition(":")[2]
    return f"{COOKIE}_{port}" if number_of(port, 5) is not None else COOKIE


def _secret(head: RequestHead) -> str:
    try:
        cookie = SimpleCookie(head.headers.get("cookie", "")).get(_cookie_name(head))
    except CookieError:
        return ""
    return "" if cookie is None else cookie.value


def _cookie(head: RequestHead, secret: str, lasts_s: int) -> tuple[str, str]:
    text = f"{_cookie_name(head)}={secret}; Path=/; Max-Age={lasts_s}; HttpOnly; SameSite=Strict"
    return "set-cookie", f"{text}; Secure" if head.secure else text


def _never_kept(response: Response) -> Response:
    return response.and_headers((("cache-control", "no-store"),))


def _json(status: int, value: Mapping[str, Any], *headers: tuple[str, str]) -> Response:
    content = answer(value).body
    return Response(status, (("content-type", JSON), *HEADERS, *headers), content, length=len(content))
