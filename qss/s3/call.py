"""One request on its way through the server: who sends it, and its body, checked as it is read."""

from __future__ import annotations

from collections.abc import AsyncIterator
from dataclasses import dataclass, replace
from urllib.parse import urlencode

from qss.s3.access.context import Caller, Tags
from qss.s3.backend import Chunk, EtagMode
from qss.s3.body import CheckedBody, claims_of
from qss.s3.errors import Code, S3Error
from qss.s3.message import RequestHead
from qss.s3.sigv4 import EMPTY_SHA256, Verified
from qss.s3.sse import NOTHING, Asked
from qss.s3.xml import XML_BYTES_MAX
from qss.values import quick


@quick
@dataclass(frozen=True, slots=True)
class Call:
    """`acts_for`, `by_form`: as `Caller` has them."""

    head: RequestHead
    raw: AsyncIterator[Chunk]
    verified: Verified | None
    acts_for: str | None = None
    sse: Asked = NOTHING
    by_form: bool = False

    @property
    def caller(self) -> Caller:
        return Caller(self.head, self.verified, self.by_form, self.acts_for)

    def setting(self, tags: Tags) -> Caller:
        """The caller who sets these tags, which a body says: policies see them as if a header did."""
        head = replace(self.head, headers={**self.head.headers, "x-amz-tagging": urlencode(tags)})
        return replace(self.caller, head=head)

    def body(self, etag_mode: EtagMode = EtagMode.MD5, want_checksum: str | None = None) -> CheckedBody:
        """The body of a put."""
        claims = claims_of(self.head.headers, self.verified)
        if want_checksum is not None and claims.checksum is None and claims.trailer is None:
            claims = replace(claims, want_checksum=want_checksum)
        return CheckedBody(self.raw, claims, etag_mode, self.verified)

    async def document(self, bytes_max: int = XML_BYTES_MAX) -> bytes:
        """A whole XML body, checked; empty when there is none."""
        headers = self.head.headers
        if not headers.keys() & {"content-length", "transfer-encoding"}:
            signed = None if self.verified is None else self.verified.sha256
            if signed not in (None, EMPTY_SHA256):  # somebody on the way has taken it off
                raise S3Error(Code.MISSING_CONTENT_LENGTH)
            return b""
        claims = claims_of(headers, self.verified, bytes_max)
        body = CheckedBody(self.raw, claims, EtagMode.OPAQUE, self.verified)
        return b"".join([bytes(chunk) async for chunk in body.chunks()])
