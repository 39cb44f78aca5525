"""The table of hostile requests, second half of the wire: signatures and dates."""

from __future__ import annotations

from collections.abc import Callable

from qss.s3.sigv4 import Credentials
from tests.harness.hostile import Site, Wire
from tests.harness.hostile_wire import Case

SECRET_PATH = "/own/secret/k"


def tampered(change: Callable[[Wire], Wire], method: str = "GET", **how: str) -> Callable[[Site], Wire]:
    """Root's signed request, changed behind the signature."""
    return lambda s: change(
        s.signed("root", method, SECRET_PATH, {"partNumber": "1"} if method == "GET" else None, **how)
    )


def replaced(old: str, new: str) -> Callable[[Wire], Wire]:
    def change(wire: Wire) -> Wire:
        assert old in wire.headers["authorization"]
        return wire.but(authorization=wire.headers["authorization"].replace(old, new))

    return change


def method(name: str) -> Callable[[Wire], Wire]:
    return lambda wire: Wire(name, wire.target, wire.headers)


def target(change: Callable[[str], str]) -> Callable[[Wire], Wire]:
    return lambda wire: Wire(wire.method, change(wire.target), wire.headers)


def later(wire: Wire) -> Wire:
    """Dated another second."""
    date = wire.headers["x-amz-date"]
    return wire.but(x_amz_date=f"{date[:-2]}{(int(date[-2]) + 1) % 10}Z")


def presigned(
    change: Callable[[Wire], Wire] = lambda wire: wire, verb: str = "GET", who: str = "root", **how: int
) -> Callable[[Site], Wire]:
    return lambda s: change(s.presigned(who, verb, SECRET_PATH, **how))


DENIED, MISMATCH = "AccessDenied", "SignatureDoesNotMatch"
MALFORMED, QUERY = "AuthorizationHeaderMalformed", "AuthorizationQueryParametersError"
SIGNATURES = [
    Case("no signature", lambda s: s.plain("s3", "GET", SECRET_PATH), 403, DENIED),
    Case("another method", tampered(method("HEAD")), 403),
    Case("a read made a deletion", tampered(method("DELETE")), 403, MISMATCH),
    Case("another path", tampered(target(lambda t: t.replace("secret/k", "secret/l"))), 403, MISMATCH),
    Case("a parameter more", tampered(target(lambda t: t + "&versionId=null")), 403, MISMATCH),
    Case("a parameter less", tampered(target(lambda t: t.partition("?")[0])), 403, MISMATCH),
    Case("a parameter of another value", tampered(target(lambda t: t.replace("=1", "=2"))), 403, MISMATCH),
    Case("a subresource more", tampered(target(lambda t: t + "&tagging")), 403, MISMATCH),
    Case("another host", tampered(lambda w: w.but(host="evil.example")), 403, MISMATCH),
    Case("another date", tampered(later), 403, MISMATCH),
    Case("no date", tampered(lambda w: w.but(x_amz_date="")), 403, DENIED),
    Case("a date that is none", tampered(lambda w: w.but(x_amz_date="yesterday")), 400, MALFORMED),
    Case("another hash of the body", tampered(lambda w: w.but(x_amz_content_sha256="0" * 64)), 403, MISMATCH),
    Case(
        "the body no longer signed", tampered(lambda w: w.but(x_amz_content_sha256="UNSIGNED-PAYLOAD")), 403, MISMATCH
    ),
    Case("no word about the body", tampered(lambda w: w.but(x_amz_content_sha256="")), 400, "InvalidRequest"),
    Case("an x-amz- header more", tampered(lambda w: w.but(x_amz_checksum_mode="ENABLED")), 403, DENIED),
    Case("a bypass put in", tampered(lambda w: w.but(x_amz_bypass_governance_retention="true"), "DELETE"), 403, DENIED),
    Case("a copy source put in", tampered(lambda w: w.but(x_amz_copy_source="/other/k"), "PUT"), 403, DENIED),
    Case("host not signed", tampered(replaced("host;", "")), 403, DENIED),
    Case(
        "signed headers in another order",
        tampered(replaced("host;x-amz-content-sha256", "x-amz-content-sha256;host")),
        403,
        MISMATCH,
    ),
    Case("a signed header that is not there", tampered(replaced("host;", "host;range;")), 403, MISMATCH),
    Case("a signature of another digit", tampered(replaced("Signature=", "Signature=0")), 403, MISMATCH),
    Case("a signature that is no ASCII", tampered(replaced("Signature=", "Signature=ä")), 403, MISMATCH),
    Case(
        "an empty signature",
        tampered(lambda w: w.but(authorization=w.headers["authorization"].partition("Signature=")[0] + "Signature=")),
        403,
        MISMATCH,
    ),
    Case("no signature in it", tampered(replaced(", Signature=", ", Sig=")), 400, MALFORMED),
    Case("another region in the scope", tampered(replaced("/us-east-1/", "/eu-west-1/")), 400, MALFORMED),
    Case("another service in the scope", tampered(replaced("/s3/", "/iam/")), 400, MALFORMED),
    Case(
        "another day in the scope", tampered(replaced("Credential=ROOTKEY/2", "Credential=ROOTKEY/1")), 400, MALFORMED
    ),
    Case("another end of the scope", tampered(replaced("/aws4_request", "/aws5_request")), 400, MALFORMED),
    Case("a key nobody has", tampered(replaced("Credential=ROOTKEY", "Credential=NOBODY")), 403, "InvalidAccessKeyId"),
    Case(
        "the key of another",
        lambda s: s.signed("eve", "GET", SECRET_PATH, credentials=Credentials("ROOTKEY", s.keys["eve"].secret_key)),
        403,
        MISMATCH,
    ),
    Case(
        "a secret that is empty",
        lambda s: s.signed("root", "GET", SECRET_PATH, credentials=Credentials("ROOTKEY", "")),
        403,
        MISMATCH,
    ),
    Case(
        "signed for another region", lambda s: s.signed("root", "GET", SECRET_PATH, region="eu-west-1"), 400, MALFORMED
    ),
    Case(
        "SigV2",
        tampered(lambda w: w.but(authorization="AWS ROOTKEY:AAAAAAAAAAAAAAAAAAAAAAAAAAA=")),
        400,
        "InvalidRequest",
    ),
    Case("Basic", tampered(lambda w: w.but(authorization="Basic Uk9PVEtFWTp4")), 400, "InvalidRequest"),
    Case("SigV4A", tampered(replaced("AWS4-HMAC-SHA256", "AWS4-ECDSA-P256-SHA256")), 400, "InvalidRequest"),
    Case(
        "two signatures",
        tampered(lambda w: Wire(w.method, w.target, w.headers | {"Authorization": w.headers["authorization"]})),
        400,
    ),
    Case("by header and by query", tampered(target(lambda t: t + "&X-Amz-Signature=0")), 400, "InvalidArgument"),
    Case(
        "16 minutes late", lambda s: s.signed("root", "GET", SECRET_PATH, skew_s=-16 * 60), 403, "RequestTimeTooSkewed"
    ),
    Case(
        "16 minutes early", lambda s: s.signed("root", "GET", SECRET_PATH, skew_s=16 * 60), 403, "RequestTimeTooSkewed"
    ),
    Case(
        "replayed after a year",
        lambda s: s.signed("root", "GET", SECRET_PATH, skew_s=-365 * 86_400),
        403,
        "RequestTimeTooSkewed",
    ),
    Case("a disabled key", lambda s: s.signed("gone", "GET", "/own/alice/mine"), 403, "InvalidAccessKeyId"),
    Case("presigned: expired", presigned(expires_s=60, skew_s=-120), 403, DENIED),
    Case("presigned: from the future", presigned(skew_s=3600), 403, DENIED),
    Case("presigned: for eight days", presigned(expires_s=8 * 86_400), 400, QUERY),
    Case("presigned: for no time", presigned(expires_s=0), 400, QUERY),
    Case("presigned: made longer", presigned(target(lambda t: t.replace("Expires=60", "Expires=6000"))), 403, MISMATCH),
    Case("presigned: two expirations", presigned(target(lambda t: t + "&X-Amz-Expires=600")), 403, MISMATCH),
    Case("presigned: a method swapped", presigned(method("PUT")), 403, MISMATCH),
    Case("presigned: another host", presigned(lambda w: w.but(host="evil.example")), 403, MISMATCH),
    Case("presigned: another key", presigned(target(lambda t: t.replace("secret/k", "secret/l"))), 403, MISMATCH),
    Case(
        "presigned: a parameter more",
        presigned(target(lambda t: t + "&response-content-type=text%2Fhtml")),
        403,
        MISMATCH,
    ),
    Case("presigned: a subresource more", presigned(target(lambda t: t + "&uploads=")), 403, MISMATCH),
    Case("presigned: a header more", presigned(lambda w: w.but(x_amz_meta_a="b"), verb="PUT"), 403, DENIED),
    Case(
        "presigned: a copy source put in",
        presigned(lambda w: w.but(x_amz_copy_source="/other/k"), verb="PUT"),
        403,
        DENIED,
    ),
    Case("presigned: no signature", presigned(target(lambda t: t.partition("&X-Amz-Signature")[0])), 400, QUERY),
    Case(
        "presigned: half of the parameters",
        presigned(target(lambda t: t.partition("?")[0] + "?X-Amz-Signature=0")),
        400,
        QUERY,
    ),
    Case(
        "presigned: SigV2",
        presigned(target(lambda t: t.partition("?")[0] + "?AWSAccessKeyId=ROOTKEY&Signature=x&Expires=9999999999")),
        400,
        "InvalidRequest",
    ),
    Case("presigned: by a disabled key", presigned(who="gone"), 403, "InvalidAccessKeyId"),
    Case("presigned: by somebody without rights", presigned(who="eve"), 403, DENIED),
]
