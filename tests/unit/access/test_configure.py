"""Documents of a bucket about access: policies, the public access block, ownership, ACL answers, CORS."""

from __future__ import annotations

import json

import pytest

from tests.harness.s3_direct import Direct

ARN = "arn:aws:s3:::"
PUBLIC = json.dumps(
    {"Statement": [{"Effect": "Allow", "Principal": "*", "Action": "s3:GetObject", "Resource": f"{ARN}bucket/*"}]}
).encode()
CORS = b"""<CORSConfiguration>
 <CORSRule><AllowedOrigin>https://*.example.com</AllowedOrigin><AllowedMethod>PUT</AllowedMethod>
  <AllowedMethod>GET</AllowedMethod><AllowedHeader>x-amz-*</AllowedHeader><ExposeHeader>ETag</ExposeHeader>
  <MaxAgeSeconds>3000</MaxAgeSeconds></CORSRule>
 <CORSRule><AllowedOrigin>*</AllowedOrigin><AllowedMethod>GET</AllowedMethod></CORSRule>
</CORSConfiguration>"""


@pytest.fixture
def direct() -> Direct:
    found = Direct()
    found.bucket("bucket", blocked=True)
    return found


def test_policy(direct: Direct) -> None:
    ask = direct.ask
    assert ask("root", "GET", "/bucket", {"policy": ""}).code == "NoSuchBucketPolicy"
    assert ask("root", "GET", "/bucket", {"policyStatus": ""}).code == "NoSuchBucketPolicy"
    assert ask("root", "PUT", "/bucket", {"policy": ""}, b"{}").code == "MalformedPolicy"
    assert ask("root", "PUT", "/bucket", {"policy": ""}, PUBLIC).code == "AccessDenied", "public policies are blocked"
    assert ask("root", "DELETE", "/bucket", {"publicAccessBlock": ""}).status == 204
    assert ask("root", "PUT", "/bucket", {"policy": ""}, PUBLIC).status == 204
    got = ask("root", "GET", "/bucket", {"policy": ""})
    assert (got.status, got.body, got.headers["content-type"]) == (200, PUBLIC, "application/json")
    assert ask("root", "GET", "/bucket", {"policyStatus": ""}).xml.get("IsPublic") == "true"
    assert ask("root", "DELETE", "/bucket", {"policy": ""}).status == 204
    assert ask("root", "GET", "/bucket", {"policy": ""}).code == "NoSuchBucketPolicy"
    assert ask("root", "PUT", "/nowhere", {"policy": ""}, PUBLIC).code == "NoSuchBucket"


def test_public_access_block(direct: Direct) -> None:
    ask = direct.ask
    root = ask("root", "GET", "/bucket", {"publicAccessBlock": ""}).xml
    assert [child.text for child in root.children] == ["true"] * 4, "as in a new bucket of AWS"
    some = (
        b"<PublicAccessBlockConfiguration><BlockPublicPolicy>true</BlockPublicPolicy></PublicAccessBlockConfiguration>"
    )
    assert ask("root", "PUT", "/bucket", {"publicAccessBlock": ""}, some).status == 200
    assert ask("root", "GET", "/bucket", {"publicAccessBlock": ""}).body == some
    assert ask("root", "PUT", "/bucket", {"policy": ""}, PUBLIC).code == "AccessDenied"
    for bad in (b"", b"<X/>", some.replace(b"true", b"maybe"), some.replace(b"PublicPolicy>", b"Everything>")):
        assert ask("root", "PUT", "/bucket", {"publicAccessBlock": ""}, bad).code == "MalformedXML"
    assert ask("root", "DELETE", "/bucket", {"publicAccessBlock": ""}).status == 204
    gone = ask("root", "GET", "/bucket", {"publicAccessBlock": ""})
    assert (gone.status, gone.code) == (404, "NoSuchPublicAccessBlockConfiguration")


def test_ownership_and_acls(direct: Direct) -> None:
    ask = direct.ask
    got = ask("root", "GET", "/bucket", {"ownershipControls": ""}).xml
    assert [rule.get("ObjectOwnership") for rule in got.all("Rule")] == ["BucketOwnerEnforced"]
    for name, code in (("ObjectWriter", "NotImplemented"), ("BucketOwnerPreferred", "NotImplemented"),
                       ("Nobody", "InvalidArgument"), ("BucketOwnerEnforced", "")):  # fmt: skip
        body = f"<OwnershipControls><Rule><ObjectOwnership>{name}</ObjectOwnership></Rule></OwnershipControls>"
        assert ask("root", "PUT", "/bucket", {"ownershipControls": ""}, body.encode()).code == code
        headers = {"x-amz-object-ownership": name}
        assert ask("root", "PUT", f"/bucket-{name.lower()}", headers=headers).code == code
    assert ask("root", "DELETE", "/bucket", {"ownershipControls": ""}).status == 204
    assert ask("root", "GET", "/bucket", {"ownershipControls": ""}).code == "OwnershipControlsNotFoundError"
    ask("root", "PUT", "/bucket/k", body=b"x")
    for path in ("/bucket", "/bucket/k"):
        grant = next(ask("root", "GET", path, {"acl": ""}).xml.find("AccessControlList").all("Grant"))  # type: ignore[union-attr]
        assert grant.get("Permission") == "FULL_CONTROL"
        for headers in ({"x-amz-acl": "public-read"}, {"x-amz-acl": "private"}, {"x-amz-grant-read": "id=1"}):
            assert ask("root", "PUT", path, {"acl": ""}, headers=headers).code == "AccessControlListNotSupported"
    assert ask("root", "GET", "/bucket/missing", {"acl": ""}).code == "NoSuchKey"
    for path, query in (("/bucket/k", {}), ("/new-bucket", {}), ("/bucket/k", {"uploads": ""})):
        method = "POST" if query else "PUT"
        refused = ask("root", method, path, query, headers={"x-amz-acl": "public-read"})
        assert refused.code == "AccessControlListNotSupported"
        assert ask("root", method, path, query, headers={"x-amz-acl": "bucket-owner-full-control"}).status == 200


def options(direct: Direct, path: str = "/bucket/k", **headers: str):
    fields = {name.replace("_", "-"): value for name, value in headers.items()}
    return direct.ask(None, "OPTIONS", path, headers=fields)


def test_cors(direct: Direct) -> None:
    ask = direct.ask
    assert ask("root", "GET", "/bucket", {"cors": ""}).code == "NoSuchCORSConfiguration"
    asked = {"origin": "https://a.example.com", "access_control_request_method": "PUT"}
    assert options(direct, **asked).code == "AccessForbidden"
    assert ask("root", "PUT", "/bucket", {"cors": ""}, CORS).status == 200
    assert ask("root", "GET", "/bucket", {"cors": ""}).body == CORS
    good = options(direct, **asked, access_control_request_headers="X-Amz-Date, x-amz-acl")
    assert good.status == 200
    assert good.headers["access-control-allow-origin"] == "https://a.example.com"
    assert good.headers["access-control-allow-methods"] == "PUT, GET"
    assert good.headers["access-control-allow-headers"] == "x-amz-date, x-amz-acl"
    assert good.headers["access-control-expose-headers"] == "ETag"
    assert good.headers["access-control-max-age"] == "3000"
    assert good.headers["access-control-allow-credentials"] == "true"
    assert "Origin" in good.headers["vary"]
    for wrong in ({"origin": "https://example.com.evil"}, {"access_control_request_method": "DELETE"},
                  {"access_control_request_headers": "authorization"}):  # fmt: skip
        assert options(direct, **{**asked, **wrong}).code == "AccessForbidden", wrong
    assert options(direct, origin="https://a.example.com").code == "BadRequest"
    assert options(direct, access_control_request_method="PUT").code == "BadRequest"
    assert options(direct, "/nowhere/k", **asked).code == "AccessForbidden"
    anything = {"origin": "https://\u20ac.example.com", "access_control_request_method": "GET"}
    assert options(direct, **anything).code == "AccessForbidden", "no answer could name this origin"
    star = options(direct, origin="https://other.example", access_control_request_method="GET")
    assert star.headers["access-control-allow-origin"] == "*"
    assert "access-control-allow-credentials" not in star.headers


def test_cors_headers_on_other_answers_and_no_rights_by_them(direct: Direct) -> None:
    direct.ask("root", "PUT", "/bucket", {"cors": ""}, CORS)
    origin = {"origin": "https://a.example.com"}
    put = direct.ask("root", "PUT", "/bucket/k", body=b"x", headers=origin)
    assert (put.status, put.headers["access-control-allow-origin"]) == (200, "https://a.example.com")
    denied = direct.ask(None, "GET", "/bucket/k", headers=origin)
    assert (denied.code, denied.headers["access-control-allow-origin"]) == ("AccessDenied", "https://a.example.com")
    other = direct.ask("root", "DELETE", "/bucket/k", headers={"origin": "https://evil.example"})
    assert "access-control-allow-origin" not in other.headers
    assert direct.ask("root", "DELETE", "/bucket", {"cors": ""}).status == 204
    plain = direct.ask("root", "GET", "/bucket", headers=origin)
    assert "access-control-allow-origin" not in plain.headers


@pytest.mark.parametrize(
    ("bad", "code"),
    [
        (b"<CORSConfiguration/>", "InvalidRequest"),
        (CORS.replace(b">PUT<", b">PATCH<"), "InvalidRequest"),
        (CORS.replace(b"https://*.", b"https://*.*."), "InvalidRequest"),
        (CORS.replace(b"ETag", b"x-*"), "InvalidRequest"),
        (CORS.replace(b"3000", b"long"), "InvalidRequest"),
        (CORS.replace(b"ETag", b"ETag&#10;set-cookie: a=b"), "InvalidRequest"),
        (CORS.replace(b"ETag", "Größe".encode()), "InvalidRequest"),
        (CORS.replace(b"https://*.", "https://ö*.".encode()), "InvalidRequest"),
        (CORS.replace(b"x-amz-*", b"x-&#9;*"), "InvalidRequest"),
        (CORS.replace(b"<AllowedOrigin>*</AllowedOrigin>", b""), "InvalidRequest"),
        (CORS.replace(b"CORSConfiguration", b"Other"), "MalformedXML"),
        (b"<CORSConfiguration>" + CORS.split(b"\n", 1)[1].rsplit(b"\n", 1)[0] * 60 + b"</CORSConfiguration>",
         "InvalidRequest"),
    ],
)  # fmt: skip
def test_cors_configurations_to_refuse(direct: Direct, bad: bytes, code: str) -> None:
    assert direct.ask("root", "PUT", "/bucket", {"cors": ""}, bad).code == code


@pytest.mark.parametrize(
    "headers",
    [
        {"x-amz-server-side-encryption": "AES256"},
        {"x-amz-server-side-encryption": "aws:kms"},
        {"x-amz-server-side-encryption-customer-algorithm": "AES256"},
        {"x-amz-copy-source": "/bucket/k", "x-amz-copy-source-server-side-encryption-customer-algorithm": "AES256"},
    ],
)
def test_what_was_to_be_encrypted_is_never_stored_plain(direct: Direct, headers: dict[str, str]) -> None:
    direct.ask("root", "PUT", "/bucket/k", body=b"x")
    assert direct.ask("root", "PUT", "/bucket/new", headers=headers).code == "NotImplemented"
    assert direct.ask("root", "POST", "/bucket/new", {"uploads": ""}, headers=headers).code == "NotImplemented"
    assert direct.ask("root", "GET", "/bucket", {"encryption": ""}).status == 404
    assert direct.ask("root", "PUT", "/bucket", {"encryption": ""}, b"<x/>").code == "NotImplemented"
    assert sorted(direct.backend.buckets["bucket"].versions) == ["k"]
