"""The console's page: files out of this package, in memory, with headers that let it ask nobody but this node."""

from __future__ import annotations

from dataclasses import replace
from importlib import resources
from typing import Final

from blake3 import blake3

from qss.s3.errors import Code, S3Error
from qss.s3.message import RequestHead, Response

CONTENT_POLICY: Final = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; connect-src 'self'; base-uri 'none'; "
    "form-action 'none'; frame-ancestors 'none'; require-trusted-types-for 'script'; trusted-types 'none'"
)
"""No inline script, no other host; and no text can become markup in the page: there is no policy that could let it."""
PAGE_HEADERS: Final = (
    ("content-security-policy", CONTENT_POLICY),
    ("x-content-type-options", "nosniff"),
    ("x-frame-options", "DENY"),
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


class Pages:
    """Path → file, all read at the start: a request never opens a file, so no path leads out of the folder."""

    def __init__(self) -> None:
        self._pages: dict[str, Response] = {}
        for file in resources.files("qss.trove").joinpath("web").iterdir():
            kind = _KINDS.get(file.name.rpartition(".")[2])
            if kind is None:
                continue
            content = file.read_bytes()
            etag = f'"{blake3(content).hexdigest(16)}"'
            headers = (("content-type", kind), ("etag", etag), *PAGE_HEADERS)
            path = "/" if file.name == "index.html" else f"/{file.name}"
            self._pages[path] = Response(200, headers, content, length=len(content))

    @property
    def paths(self) -> list[str]:
        return sorted(self._pages)

    def answer(self, head: RequestHead) -> Response:
        """Raises S3Error NOT_FOUND, METHOD_NOT_ALLOWED."""
        page = self._pages.get(head.path)
        if page is None:
            raise S3Error(Code.NOT_FOUND, "There is no such page.")
        if head.method not in ("GET", "HEAD"):
            raise S3Error(Code.METHOD_NOT_ALLOWED)
        if head.headers.get("if-none-match") == dict(page.headers)["etag"]:
            return replace(page, status=304, body=b"", length=None)
        return replace(page, body=b"") if head.method == "HEAD" else page
