"""What lifecycle rules have in store, told in the headers of answers."""

from __future__ import annotations

import pytest

from tests.harness.s3_direct import Answer, Direct

RULES = b"""<LifecycleConfiguration>
<Rule><ID>after ten</ID><Filter><Prefix>a/</Prefix></Filter><Status>Enabled</Status>
<Expiration><Days>10</Days></Expiration></Rule>
<Rule><ID>earlier</ID><Filter><And><Prefix>a/</Prefix><Tag><Key>t</Key><Value>v</Value></Tag></And></Filter>
<Status>Enabled</Status><Expiration><Date>2023-11-20T00:00:00Z</Date></Expiration></Rule>
<Rule><ID>off</ID><Filter><Prefix>off/</Prefix></Filter><Status>Disabled</Status>
<Expiration><Days>1</Days></Expiration></Rule>
<Rule><ID>stale</ID><Filter><Prefix>up/</Prefix></Filter><Status>Enabled</Status>
<AbortIncompleteMultipartUpload><DaysAfterInitiation>3</DaysAfterInitiation></AbortIncompleteMultipartUpload></Rule>
</LifecycleConfiguration>"""
TEN = 'expiry-date="Sat, 25 Nov 2023 00:00:00 GMT", rule-id="after%20ten"'  # now is the 14th, 22:13
EARLIER = 'expiry-date="Mon, 20 Nov 2023 00:00:00 GMT", rule-id="earlier"'


@pytest.fixture
def direct() -> Direct:
    found = Direct()
    found.bucket("bkt")
    assert found.ask("root", "PUT", "/bkt", {"lifecycle": ""}, RULES).status == 200
    return found


def told(answer: Answer) -> str | None:
    assert answer.status == 200, answer.body
    return answer.headers.get("x-amz-expiration")


@pytest.mark.parametrize(
    ("path", "headers", "expected"),
    [
        ("/bkt/a/k", {}, TEN),
        ("/bkt/a/k", {"x-amz-tagging": "t=v"}, EARLIER),
        ("/bkt/a/k", {"x-amz-tagging": "t=w"}, TEN),
        ("/bkt/off/k", {}, None),
        ("/bkt/up/k", {}, None),
        ("/bkt/k", {}, None),
    ],
)
def test_objects(direct: Direct, path: str, headers: dict[str, str], expected: str | None) -> None:
    assert told(direct.ask("root", "PUT", path, body=b"x", headers=headers)) == expected
    assert told(direct.ask("root", "GET", path)) == expected
    assert told(direct.ask("root", "HEAD", path)) == expected
    copied = direct.ask("root", "PUT", f"{path}-copy", headers={"x-amz-copy-source": path})
    assert told(copied) == expected


def test_of_older_versions_nothing_is_told(direct: Direct) -> None:
    on = b"<VersioningConfiguration><Status>Enabled</Status></VersioningConfiguration>"
    direct.ask("root", "PUT", "/bkt", {"versioning": ""}, on)
    version = direct.ask("root", "PUT", "/bkt/a/k", body=b"x").headers["x-amz-version-id"]
    assert told(direct.ask("root", "GET", "/bkt/a/k")) == TEN
    assert told(direct.ask("root", "GET", "/bkt/a/k", {"versionId": version})) is None


def test_uploads(direct: Direct) -> None:
    for key, expected in (("up/k", "Sat, 18 Nov 2023 00:00:00 GMT"), ("a/k", None)):
        started = direct.ask("root", "POST", f"/bkt/{key}", {"uploads": ""})
        listed = direct.ask("root", "GET", f"/bkt/{key}", {"uploadId": started.xml.get("UploadId")})
        for answer in (started, listed):
            assert answer.headers.get("x-amz-abort-date") == expected
            assert answer.headers.get("x-amz-abort-rule-id") == ("stale" if expected else None)
    query = {"uploadId": started.xml.get("UploadId")}
    part = direct.ask("root", "PUT", "/bkt/a/k", {**query, "partNumber": "1"}, b"x")
    tag = part.headers["etag"]
    one = f"<Part><PartNumber>1</PartNumber><ETag>{tag}</ETag></Part>"
    body = f"<CompleteMultipartUpload>{one}</CompleteMultipartUpload>".encode()
    assert told(direct.ask("root", "POST", "/bkt/a/k", query, body)) == TEN


def test_without_rules_nothing_is_told(direct: Direct) -> None:
    direct.ask("root", "DELETE", "/bkt", {"lifecycle": ""})
    assert told(direct.ask("root", "PUT", "/bkt/a/k", body=b"x")) is None
    assert told(direct.ask("root", "GET", "/bkt/a/k")) is None
