"""The table of hostile requests, fourth part: ways around policies, by users, by forms and by nobody.

alice may do everything with own/alice/* and with objects in `locked`, but not bypass governance, nor read a version of
own/alice/versioned; she may list own/alice/*. eve may do nothing. `other` denies everything to all but root.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from tests.harness.hostile import Site, Wire
from tests.harness.hostile_wire import Case

DENIED = "AccessDenied"
Made = Callable[[Site], bytes | Wire]


def by(
    who: str, verb: str, path: str, query: Mapping[str, str] | None = None, body: bytes = b"", **headers: str
) -> Made:
    """A good signature of somebody. `{name}` in query and headers stands for what the site has found."""

    def make(site: Site) -> Wire:
        told = {name.replace("_", "-"): site.filled(value) for name, value in headers.items()}
        asked = {name: site.filled(value) for name, value in (query or {}).items()}
        return site.signed(who, verb, path, asked, body=site.filled(body.decode()).encode(), headers=told)

    return make


def nobody(verb: str, target: str, body: bytes = b"", **headers: str) -> Made:
    return lambda s: s.plain("s3", verb, target, body, **headers)


PART = {"uploadId": "{upload}", "partNumber": "1"}
COMPLETE = (
    b"<CompleteMultipartUpload><Part><PartNumber>1</PartNumber><ETag>{upload etag}</ETag></Part>"
    b"</CompleteMultipartUpload>"
)
TAGS = b"<Tagging><TagSet><Tag><Key>a</Key><Value>b</Value></Tag></TagSet></Tagging>"
HOLD = b"<LegalHold><Status>OFF</Status></LegalHold>"
SHORTER = b"<Retention><Mode>GOVERNANCE</Mode><RetainUntilDate>2098-01-01T00:00:00Z</RetainUntilDate></Retention>"
GOVERNED = {"versionId": "{locked}"}
MINE = "/own/alice/new"
SECRET_PATH = "/own/secret/k"
USERS = [
    Case("read", by("eve", "GET", SECRET_PATH), 403, DENIED),
    Case("read by range", by("eve", "GET", SECRET_PATH, range="bytes=0-0"), 403, DENIED),
    Case("read a version", by("eve", "GET", SECRET_PATH, {"versionId": "{/own/secret/k}"}), 403, DENIED),
    Case("read a part", by("alice", "GET", SECRET_PATH, {"partNumber": "1"}), 403, DENIED),
    Case("find out whether it is there", by("eve", "GET", "/own/secret/nothing"), 403, DENIED),
    Case(
        "read attributes",
        by("eve", "GET", SECRET_PATH, {"attributes": ""}, x_amz_object_attributes="ETag"),
        403,
        DENIED,
    ),
    Case("read tags", by("eve", "GET", SECRET_PATH, {"tagging": ""}), 403, DENIED),
    Case("hash in place", by("eve", "HEAD", SECRET_PATH, x_trove_hashes="0-0"), 403),
    Case("list", by("eve", "GET", "/own"), 403, DENIED),
    Case("list version 2", by("eve", "GET", "/own", {"list-type": "2", "prefix": "alice/"}), 403, DENIED),
    Case("list all", by("alice", "GET", "/own"), 403, DENIED),
    Case("list a denied prefix", by("alice", "GET", "/own", {"prefix": "secret/"}), 403, DENIED),
    Case("list a prefix that only begins so", by("alice", "GET", "/own", {"prefix": "alice"}), 403, DENIED),
    Case("list with two prefixes", lambda s: _twice(s, "prefix=alice%2F&prefix=secret%2F"), 403, DENIED),
    Case("list versions", by("alice", "GET", "/own", {"versions": "", "prefix": "secret/"}), 403, DENIED),
    Case("list uploads", by("alice", "GET", "/own", {"uploads": "", "prefix": "alice/"}), 403, DENIED),
    Case("list buckets", by("alice", "GET", "/"), 403, DENIED),
    Case("write", by("eve", "PUT", SECRET_PATH, None, b"x"), 403, DENIED),
    Case("write beside the own prefix", by("alice", "PUT", "/own/alice2", None, b"x"), 403, DENIED),
    Case("delete", by("eve", "DELETE", SECRET_PATH), 403, DENIED),
    Case("delete a version", by("alice", "DELETE", SECRET_PATH, {"versionId": "{/own/secret/k}"}), 403, DENIED),
    Case("delete a bucket", by("alice", "DELETE", "/own"), 403, DENIED),
    Case("make a bucket", by("alice", "PUT", "/alices"), 403, DENIED),
    Case("write tags", by("alice", "PUT", SECRET_PATH, {"tagging": ""}, TAGS), 403, DENIED),
    Case("delete tags", by("alice", "DELETE", SECRET_PATH, {"tagging": ""}), 403, DENIED),
    Case("tags by a header", by("eve", "PUT", MINE, None, b"x", x_amz_tagging="a=b"), 403, DENIED),
    Case(
        "a version that is denied",
        by("alice", "GET", "/own/alice/versioned", {"versionId": "{/own/alice/versioned}"}),
        403,
        DENIED,
    ),
    Case(
        "a copy of a version that is denied",
        by("alice", "PUT", MINE, x_amz_copy_source="own/alice/versioned?versionId={/own/alice/versioned}"),
        403,
        DENIED,
    ),
    Case("a copy of what may not be read", by("alice", "PUT", MINE, x_amz_copy_source="/own/secret/k"), 403, DENIED),
    Case("a copy of it, escaped", by("alice", "PUT", MINE, x_amz_copy_source="own%2Fsecret%2Fk"), 403, DENIED),
    Case(
        "a copy of it by a climbing name",
        by("alice", "PUT", MINE, x_amz_copy_source="own/alice/../secret/k"),
        403,
        DENIED,
    ),
    Case("a copy from a bucket that denies", by("alice", "PUT", MINE, x_amz_copy_source="other/k"), 403, DENIED),
    Case(
        "a copy to where nothing may be written",
        by("alice", "PUT", "/other/c", x_amz_copy_source="own/alice/mine"),
        403,
        DENIED,
    ),
    Case(
        "a part copied from what may not be read",
        by(
            "alice",
            "PUT",
            "/own/alice/up",
            {"uploadId": "{alices}", "partNumber": "2"},
            x_amz_copy_source="own/secret/k",
        ),
        403,
        DENIED,
    ),
    Case(
        "a part copied from another's version",
        by(
            "alice",
            "PUT",
            "/own/alice/up",
            {"uploadId": "{alices}", "partNumber": "2"},
            x_amz_copy_source="own/secret/k?versionId={/own/secret/k}",
        ),
        403,
        DENIED,
    ),
    Case("a part for another's upload", by("eve", "PUT", "/own/secret/up", PART, b"x"), 403, DENIED),
    Case("another's upload under an own key", by("alice", "PUT", "/own/alice/up", PART, b"x"), 404, "NoSuchUpload"),
    Case(
        "an upload of another bucket",
        by("root", "PUT", "/own/other/up", {"uploadId": "{others}", "partNumber": "2"}, b"x"),
        404,
        "NoSuchUpload",
    ),
    Case(
        "another's upload completed",
        by("eve", "POST", "/own/secret/up", {"uploadId": "{upload}"}, COMPLETE),
        403,
        DENIED,
    ),
    Case(
        "another's upload completed under an own key",
        by("alice", "POST", "/own/alice/up", {"uploadId": "{upload}"}, COMPLETE),
        404,
        "NoSuchUpload",
    ),
    Case("another's upload aborted", by("eve", "DELETE", "/own/secret/up", {"uploadId": "{upload}"}), 403, DENIED),
    Case("another's parts listed", by("eve", "GET", "/own/secret/up", {"uploadId": "{upload}"}), 403, DENIED),
    Case("an upload begun", by("eve", "POST", MINE, {"uploads": ""}), 403, DENIED),
    Case("an upload with rights nobody gave", by("alice", "POST", "/other/x", {"uploads": ""}), 403, DENIED),
    Case(
        "governance bypassed",
        by("alice", "DELETE", "/locked/k", GOVERNED, x_amz_bypass_governance_retention="true"),
        403,
        DENIED,
    ),
    Case("governance bypassed by root, without saying so", by("root", "DELETE", "/locked/k", GOVERNED), 403, DENIED),
    Case(
        "a retention made shorter",
        by(
            "alice", "PUT", "/locked/k", GOVERNED | {"retention": ""}, SHORTER, x_amz_bypass_governance_retention="true"
        ),
        403,
        DENIED,
    ),
    Case(
        "a retention made shorter, without bypass",
        by("root", "PUT", "/locked/k", GOVERNED | {"retention": ""}, SHORTER),
        403,
        DENIED,
    ),
    Case("NotAction: settings of the bucket", by("alice", "GET", "/locked", {"versioning": ""}), 403, DENIED),
    Case("NotAction: the policy", by("alice", "PUT", "/locked", {"policy": ""}, b"{}"), 403, DENIED),
    Case("NotPrincipal: another user", by("alice", "GET", "/other/k"), 403, DENIED),
    Case("NotPrincipal: nobody", nobody("GET", "/other/k"), 403, DENIED),
    Case("a policy of one's own", by("alice", "PUT", "/own", {"policy": ""}, b"{}"), 403, DENIED),
    Case("the policy taken away", by("alice", "DELETE", "/other", {"policy": ""}), 403, DENIED),
    Case("public access let in", by("alice", "DELETE", "/own", {"publicAccessBlock": ""}), 403, DENIED),
    Case(
        "versioning switched off",
        by("alice", "PUT", "/own", {"versioning": ""}, b"<VersioningConfiguration/>"),
        403,
        DENIED,
    ),
    Case(
        "a lifecycle that deletes",
        by("alice", "PUT", "/own", {"lifecycle": ""}, b"<LifecycleConfiguration/>"),
        403,
        DENIED,
    ),
    Case(
        "many deleted by nobody",
        nobody("POST", "/own?delete", b"<Delete><Object><Key>secret/k</Key></Object></Delete>"),
        403,
        DENIED,
    ),
    Case("an ACL header of nobody", nobody("PUT", "/own/c", b"x", x_amz_acl="public-read"), 403, DENIED),
    Case(
        "an ACL header of eve",
        by("eve", "PUT", "/own/c", None, b"x", x_amz_acl="bucket-owner-full-control"),
        403,
        DENIED,
    ),
    Case("an origin of one's own", nobody("GET", "/own/secret/k", origin="http://evil.example"), 403, DENIED),
    Case(
        "a preflight where there is no CORS",
        nobody("OPTIONS", "/own/secret/k", origin="http://evil.example", access_control_request_method="GET"),
        403,
        "AccessForbidden",
    ),
    Case(
        "another address by a header",
        nobody("GET", SECRET_PATH, x_forwarded_for="127.0.0.1", x_real_ip="127.0.0.1"),
        403,
        DENIED,
    ),
]


def _twice(site: Site, query: str) -> Wire:
    """Parameters given twice, signed as they are: the gate and the listing must look at the same one."""
    wire = site.signed("alice", "GET", "/own", {"prefix": "MARK"})
    return site.resigned(wire, "alice", "/own", query)


# -- forms
def form(conditions: Sequence[Any], fields: Sequence[tuple[str, str]], who: str = "root", **how: Any) -> Made:
    """A form with a signed policy; `how`: `expiration`, `bucket`, `before` (fields before those of the policy)."""

    def make(site: Site) -> Wire:
        signed = site.policy(who, conditions, **({"expiration": how["expiration"]} if "expiration" in how else {}))
        signed |= how.get("changed", {})
        return site.form([*fields, *signed.items()], how.get("bucket", "own"))

    return make


def _file_first(site: Site) -> Wire:
    """What follows the file is not looked at: the policy cannot be."""
    first, signed = site.form(KEY), site.form([*site.policy("root", HERE).items()], file=None)
    body = first.body.removesuffix(b"--frontier--\r\n") + signed.body
    return Wire("POST", "/own", first.headers | {"content-length": str(len(body))}, body)


def _bare(site: Site, kind: str) -> Wire:
    return Wire("POST", "/own", {"host": site.host, "content-type": kind, "content-length": "5"}, b"hello")


HERE = [{"bucket": "own"}, ["starts-with", "$key", "up/"]]
KEY = [("key", "up/f")]
FORMS = [
    Case("another key than the policy allows", form(HERE, [("key", "secret/k")]), 403, DENIED),
    Case("a key that climbs out", form([{"bucket": "own"}, {"key": "up/f"}], [("key", "up/../secret/k")]), 403, DENIED),
    Case(
        "a file name that makes the key",
        form([{"bucket": "own"}, {"key": "up/x"}], [("key", "up/${filename}")]),
        403,
        DENIED,
    ),
    Case("another bucket than the policy's", form(HERE, KEY, bucket="other"), 403, DENIED),
    Case("another bucket by a field", form(HERE, [*KEY, ("bucket", "own")], bucket="other"), 403, DENIED),
    Case("a policy without its bucket", form([["starts-with", "$key", "up/"]], KEY), 403, DENIED),
    Case("an expired policy", form(HERE, KEY, expiration="2020-01-01T00:00:00Z"), 403, DENIED),
    Case("a field nobody allowed", form(HERE, [*KEY, ("x-amz-meta-a", "b")]), 403, DENIED),
    Case("a type nobody allowed", form(HERE, [*KEY, ("Content-Type", "text/html")]), 403, DENIED),
    Case(
        "a redirect nobody allowed", form(HERE, [*KEY, ("success_action_redirect", "http://evil.example")]), 403, DENIED
    ),
    Case("a field twice", form(HERE, [*KEY, ("key", "secret/k")]), 400, "MalformedPOSTRequest"),
    Case("a field twice in two spellings", form(HERE, [*KEY, ("KEY", "secret/k")]), 400, "MalformedPOSTRequest"),
    Case("a file too large", form([*HERE, ["content-length-range", 0, 3]], KEY), 400, "EntityTooLarge"),
    Case("a file too small", form([*HERE, ["content-length-range", 5, 9]], KEY), 400, "EntityTooSmall"),
    Case("a signature changed", form(HERE, KEY, changed={"x-amz-signature": "0" * 64}), 403, "SignatureDoesNotMatch"),
    Case("a policy changed", form(HERE, KEY, changed={"policy": "e30="}), 403, "SignatureDoesNotMatch"),
    Case("an algorithm changed", form(HERE, KEY, changed={"x-amz-algorithm": "none"}), 400, "InvalidRequest"),
    Case("signed by somebody without rights", form(HERE, KEY, who="eve"), 403, DENIED),
    Case("signed by a disabled key", form(HERE, KEY, who="gone"), 403, "InvalidAccessKeyId"),
    Case("no policy", lambda s: s.form(KEY), 403, DENIED),
    Case("a signature without policy", lambda s: s.form([*KEY, ("x-amz-signature", "0")]), 400, "InvalidArgument"),
    Case(
        "SigV2",
        lambda s: s.form([*KEY, ("AWSAccessKeyId", "ROOTKEY"), ("policy", "e30="), ("signature", "x")]),
        400,
        "InvalidRequest",
    ),
    Case("the file before its policy", _file_first, 403, DENIED),
    Case("no file", lambda s: s.form(KEY, file=None), 400, "IncorrectNumberOfFilesInPostRequest"),
    Case("no key", lambda s: s.form([("acl", "private")]), 400, "InvalidArgument"),
    Case("fields of 100 KB", lambda s: s.form([("key", "a" * 100_000)]), 400, "MaxPostPreDataLengthExceededError"),
    Case("a body without its boundary", lambda s: _bare(s, "multipart/form-data"), 400, "MalformedPOSTRequest"),
    Case("a form that is no form", lambda s: _bare(s, "application/x-www-form-urlencoded"), 412, "PreconditionFailed"),
]


ACCESS = [
    *(case._replace(name=f"users: {case.name}") for case in USERS),
    *(case._replace(name=f"forms: {case.name}") for case in FORMS),
]
