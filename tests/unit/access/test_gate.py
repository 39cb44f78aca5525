"""The gate: each operation is denied to who has no rights, allowed by what its row asks for; no detour works."""

from __future__ import annotations

import json
import typing

import pytest

from qss.s3 import operations as op
from qss.s3.access.actions import NEEDS, needs_of
from qss.s3.access.policy import ACCOUNT
from qss.s3.access.vocabulary import ACTIONS
from qss.s3.message import RequestHead
from qss.s3.parse import _ROWS, parse
from tests.harness.s3_direct import Answer, Direct

ARN = "arn:aws:s3:::"
DELETE = b"<Delete><Object><Key>k</Key></Object></Delete>"
COMPLETE = b"<CompleteMultipartUpload><Part><PartNumber>1</PartNumber><ETag>x</ETag></Part></CompleteMultipartUpload>"
COPY = {"x-amz-copy-source": "/bucket/k"}
SIZE = {"x-amz-object-attributes": "ObjectSize"}
PARAMS = {"partNumber": "1"}


def allow(*actions: str, resource: str | list[str] = "*", **fields: object) -> str:
    value = {"Effect": "Allow", "Action": list(actions), "Resource": resource, **fields}
    return json.dumps({"Version": "2012-10-17", "Statement": [value]})


def open_to(who: object, *actions: str, resource: str = f"{ARN}bucket/*", **fields: object) -> str:
    return allow(*actions, resource=resource, Principal=who, **fields)


def requests() -> list[tuple[str, str, dict[str, str], dict[str, str]]]:
    """(method, path, query, headers) of every row of the parser, and of those that headers turn into something else."""
    paths = {"service": "/", "bucket": "/bucket", "key": "/bucket/k"}
    found = []
    for (level, sub), methods in _ROWS.items():
        for method in methods:
            query = {} if not sub else {sub: "0" * 32 if sub == "uploadId" else ""}
            if sub == "uploadId" and method == "PUT":
                found.append((method, paths[level], {**query, **PARAMS}, COPY))
                query |= PARAMS
            if (level, sub, method) == ("key", "", "PUT"):
                found.append((method, paths[level], query, COPY))
            headers = SIZE if sub == "attributes" else {}
            if level == "key" and sub in ("", "tagging", "acl", "attributes", "retention", "legal-hold"):
                found.append((method, paths[level], {**query, "versionId": "null"}, headers))
            found.append((method, paths[level], query, headers))
    return found


def named(request: tuple[str, str, dict[str, str], dict[str, str]]) -> str:
    method, path, query, headers = request
    return f"{method} {path}?{'&'.join(query)} {'copy' if headers is COPY else ''}".strip()


def send(direct: Direct, who: str | None, request: tuple[str, str, dict[str, str], dict[str, str]]) -> Answer:
    method, path, query, headers = request
    body = DELETE if "delete" in query else b""
    return direct.ask(who, method, path, query, body, headers)


@pytest.fixture
def direct() -> Direct:
    found = Direct()
    found.users.documents["nobody"] = []
    found.bucket("bucket")
    assert found.ask("root", "PUT", "/bucket/k", body=b"secret").status == 200
    return found


@pytest.mark.parametrize("who", ["nobody", None])
@pytest.mark.parametrize("request_", requests(), ids=named)
def test_every_operation_is_denied_to_who_has_no_rights(direct: Direct, who: str | None, request_) -> None:
    before = {key: list(versions) for key, versions in direct.backend.buckets["bucket"].versions.items()}
    answer = send(direct, who, request_)
    if "delete" in request_[2] and who is not None:
        assert answer.status == 200
        assert [each.get("Code") for each in answer.xml.all("Error")] == ["AccessDenied"]
    else:
        assert answer.status == 403
        assert request_[0] == "HEAD" or answer.code == "AccessDenied"
    assert direct.backend.buckets["bucket"].versions == before
    assert direct.backend.open_readers == 0


def _operation_of(request) -> op.Operation:
    method, path, query, headers = request
    return parse(RequestHead(method, path, "&".join(f"{k}={v}" for k, v in query.items()), headers))


@pytest.mark.parametrize("request_", requests(), ids=named)
def test_what_the_row_asks_for_is_enough_and_all_of_it_is_needed(direct: Direct, request_) -> None:
    needs = needs_of(_operation_of(request_), request_[3])
    assert needs is not None
    if "delete" in request_[2]:
        needs = needs_of(_operation_of(("DELETE", "/bucket/k", {}, {})), {})
        assert needs is not None
    policies = [allow(need.action, resource=need.resource) for need in needs]
    direct.users.documents["nobody"] = policies
    answer = send(direct, "nobody", request_)
    assert answer.code != "AccessDenied", needs
    for lacking in range(len(policies)):
        found = Direct()
        found.users.documents["nobody"] = policies[:lacking] + policies[lacking + 1 :]
        found.bucket("bucket")
        found.ask("root", "PUT", "/bucket/k", body=b"secret")
        answer = send(found, "nobody", request_)
        errors = [each.get("Code") for each in answer.xml.all("Error")] if "delete" in request_[2] else [answer.code]
        assert answer.status == 403 or errors == ["AccessDenied"], needs[lacking]


def test_every_operation_has_its_row_and_every_row_names_actions_that_exist() -> None:
    assert set(typing.get_args(op.Operation)) == NEEDS.keys()
    for request in requests():
        for need in needs_of(_operation_of(request), {"x-amz-acl": "private", "x-amz-tagging": "a=b"}) or ():
            assert need.action in ACTIONS, need
            kind = "service" if not need.bucket else "bucket" if need.key is None else "object"
            assert ACTIONS[need.action] == kind, need


# -- principals and where rights come from
def test_rights_of_a_user_and_rights_in_a_bucket_add_up_and_a_deny_of_either_wins(direct: Direct) -> None:
    alice = f"arn:aws:iam::{ACCOUNT}:user/alice"
    direct.users.documents |= {"alice": [], "bob": [allow("s3:GetObject", resource=f"{ARN}b2/*")]}
    direct.bucket("b2", open_to({"AWS": alice}, "s3:GetObject", resource=f"{ARN}b2/*"))
    direct.ask("root", "PUT", "/b2/k", body=b"x")
    assert direct.ask("alice", "GET", "/b2/k").status == 200
    assert direct.ask("bob", "GET", "/b2/k").status == 200
    assert direct.ask(None, "GET", "/b2/k").status == 403
    assert direct.ask("alice", "PUT", "/b2/k").status == 403
    deny = {"Effect": "Deny", "Principal": "*", "Action": "s3:GetObject", "Resource": f"{ARN}b2/k"}
    direct.bucket("b3", json.dumps({"Statement": [deny]}).replace("b2", "b3"))
    direct.ask("root", "PUT", "/b3/k", body=b"x")
    direct.users.documents["bob"] = [allow("s3:*")]
    assert direct.ask("bob", "GET", "/b3/k").status == 403
    assert direct.ask("root", "GET", "/b3/k").status == 403, "a Deny holds for root too"
    direct.users.documents["bob"] = [allow("s3:*"), allow("s3:*").replace("Allow", "Deny")]
    assert direct.ask("bob", "GET", "/b2/k").status == 403


def test_root_gets_out_of_a_policy_that_locks_everybody_out(direct: Direct) -> None:
    deny = {"Effect": "Deny", "Principal": "*", "Action": "s3:*", "Resource": [f"{ARN}b2", f"{ARN}b2/*"]}
    direct.bucket("b2", json.dumps({"Statement": [deny]}))
    direct.users.documents["admin"] = [allow("s3:*")]
    assert direct.ask("root", "GET", "/b2").status == 403
    assert direct.ask("admin", "DELETE", "/b2", {"policy": ""}).status == 403
    assert direct.ask("root", "DELETE", "/b2", {"policy": ""}).status == 204
    assert direct.ask("root", "GET", "/b2").status == 200


def test_a_policy_that_cannot_be_read_lets_nobody_in_but_root(direct: Direct) -> None:
    direct.bucket("b2", "{not json")
    direct.users.documents["admin"] = [allow("s3:*")]
    assert direct.ask("admin", "GET", "/b2").status == 403
    assert direct.ask("root", "GET", "/b2").status == 200


def test_anonymous_by_policy_and_not_where_public_buckets_are_restricted(direct: Direct) -> None:
    public = open_to("*", "s3:GetObject", resource=f"{ARN}b2/*")
    direct.bucket("b2", public)
    direct.ask("root", "PUT", "/b2/k", body=b"public")
    assert direct.ask(None, "GET", "/b2/k").body == b"public"
    assert direct.ask(None, "GET", "/b2/missing").code == "AccessDenied", "who may not list is not told what is absent"
    assert direct.ask(None, "PUT", "/b2/k", body=b"x").code == "AccessDenied"
    direct.bucket("b3", public.replace("b2", "b3"), blocked=True)
    direct.users.documents["alice"] = []
    direct.ask("root", "PUT", "/b3/k", body=b"x")
    assert direct.ask(None, "GET", "/b3/k").code == "AccessDenied"
    assert direct.ask("alice", "GET", "/b3/k").status == 200, "who belongs to the account is not the public"


def test_absence_is_told_to_those_who_may_list(direct: Direct) -> None:
    reads = "s3:GetObject", "s3:GetObjectAttributes"
    attributes = "alice", "GET", "/bucket/missing", {"attributes": ""}, b"", SIZE
    direct.users.documents["alice"] = [allow(*reads)]
    assert direct.ask("alice", "GET", "/bucket/missing").code == "AccessDenied"
    assert direct.ask(*attributes).code == "AccessDenied"
    direct.users.documents["alice"] = [allow(*reads, "s3:ListBucket")]
    assert direct.ask("alice", "GET", "/bucket/missing").code == "NoSuchKey"
    assert direct.ask(*attributes).code == "NoSuchKey"


# -- detours
def test_a_copy_needs_the_right_to_read_its_source(direct: Direct) -> None:
    direct.users.documents["alice"] = [allow("s3:*", resource=[f"{ARN}own", f"{ARN}own/*"])]
    direct.bucket("own")
    for source in ("/bucket/k", "bucket/k", "/bucket/k?versionId=null", "%2Fbucket%2Fk"):
        answer = direct.ask("alice", "PUT", "/own/copy", headers={"x-amz-copy-source": source})
        assert answer.code == "AccessDenied", source
    started = direct.ask("alice", "POST", "/own/big", {"uploads": ""})
    query = {"uploadId": started.xml.get("UploadId"), "partNumber": "1"}
    assert direct.ask("alice", "PUT", "/own/big", query, headers=COPY).code == "AccessDenied"
    assert direct.backend.open_readers == 0


def test_tags_are_not_carried_out_by_a_copy(direct: Direct) -> None:
    direct.ask("root", "PUT", "/bucket/k", body=b"x", headers={"x-amz-tagging": "secret=1"})
    direct.users.documents["alice"] = [allow("s3:GetObject", "s3:PutObject")]
    assert direct.ask("alice", "PUT", "/bucket/copy", headers=COPY).code == "AccessDenied"
    replaced = {**COPY, "x-amz-tagging-directive": "REPLACE"}
    assert direct.ask("alice", "PUT", "/bucket/copy", headers=replaced).status == 200
    direct.users.documents["alice"] = [allow("s3:GetObject", "s3:PutObject", "s3:GetObjectTagging")]
    assert direct.ask("alice", "PUT", "/bucket/copy", headers=COPY).code == "AccessDenied"
    direct.users.documents["alice"].append(allow("s3:PutObjectTagging"))
    assert direct.ask("alice", "PUT", "/bucket/copy", headers=COPY).status == 200
    assert direct.backend.open_readers == 0


@pytest.mark.parametrize(
    ("headers", "action"),
    [
        ({"x-amz-tagging": "a=b"}, "s3:PutObjectTagging"),
        ({"x-amz-acl": "bucket-owner-full-control"}, "s3:PutObjectAcl"),
        ({"x-amz-object-lock-legal-hold": "ON"}, "s3:PutObjectLegalHold"),
        ({"x-amz-object-lock-mode": "GOVERNANCE", "x-amz-object-lock-retain-until-date": "2030-01-01T00:00:00Z"},
         "s3:PutObjectRetention"),
    ],
)  # fmt: skip
def test_headers_that_set_more_than_bytes_need_more_than_the_right_to_put(direct: Direct, headers, action) -> None:
    for method, query in (("PUT", {}), ("POST", {"uploads": ""})):
        direct.users.documents["alice"] = [allow("s3:PutObject")]
        assert direct.ask("alice", method, "/bucket/k", query, headers=headers).code == "AccessDenied"
        direct.users.documents["alice"] = [allow("s3:PutObject", action)]
        assert direct.ask("alice", method, "/bucket/k", query, headers=headers).code != "AccessDenied"


def test_each_key_of_a_multi_delete_is_asked_about(direct: Direct) -> None:
    direct.users.documents["alice"] = [allow("s3:DeleteObject", resource=f"{ARN}bucket/mine/*")]
    direct.ask("root", "PUT", "/bucket/mine/k", body=b"x")
    body = b"<Delete><Object><Key>k</Key></Object><Object><Key>mine/k</Key></Object></Delete>"
    root = direct.ask("alice", "POST", "/bucket", {"delete": ""}, body).xml
    assert [(each.get("Key"), each.get("Code")) for each in root.all("Error")] == [("k", "AccessDenied")]
    assert [each.get("Key") for each in root.all("Deleted")] == ["mine/k"]
    assert sorted(direct.backend.buckets["bucket"].versions) == ["k"]


def test_a_version_has_actions_of_its_own(direct: Direct) -> None:
    direct.users.documents["alice"] = [allow("s3:GetObject", "s3:DeleteObject")]
    assert direct.ask("alice", "GET", "/bucket/k").status == 200
    assert direct.ask("alice", "GET", "/bucket/k", {"versionId": "null"}).code == "AccessDenied"
    assert direct.ask("alice", "DELETE", "/bucket/k", {"versionId": "null"}).code == "AccessDenied"


# -- conditions, as requests bring them
def test_conditions_on_the_request(direct: Direct) -> None:
    def may(condition: object, query: dict[str, str] | None = None, **options: object) -> bool:
        direct.users.documents["alice"] = [allow("s3:ListBucket", Condition=condition)]
        return direct.ask("alice", "GET", "/bucket", query or {}, **options).status == 200  # type: ignore[arg-type]

    assert may({"StringLike": {"s3:prefix": "home/${aws:username}/*"}}, {"prefix": "home/alice/x"})
    assert not may({"StringLike": {"s3:prefix": "home/${aws:username}/*"}}, {"prefix": "home/bob/x"})
    assert may({"Null": {"s3:prefix": "true"}})
    assert may({"StringEquals": {"s3:prefix": ""}}, {"prefix": ""})
    assert may({"NumericLessThanEquals": {"s3:max-keys": "10"}}, {"max-keys": "10"})
    assert not may({"NumericLessThanEquals": {"s3:max-keys": "10"}}, {"max-keys": "11"})
    assert may({"IpAddress": {"aws:SourceIp": "192.0.2.0/24"}})
    assert not may({"IpAddress": {"aws:SourceIp": "192.0.2.0/24"}}, client="198.51.100.1")
    assert not may({"IpAddress": {"aws:SourceIp": "192.0.2.0/24"}}, client="198.51.100.1",
                   headers={"x-forwarded-for": "192.0.2.1"})  # fmt: skip
    assert not may({"Bool": {"aws:SecureTransport": "true"}}, secure=False)
    assert may({"DateGreaterThan": {"aws:CurrentTime": "2023-11-14T00:00:00Z"}})
    assert not may({"DateGreaterThan": {"aws:CurrentTime": "2023-11-15T00:00:00Z"}})
    assert may({"StringEquals": {"s3:authType": "REST-HEADER", "s3:signatureversion": "AWS4-HMAC-SHA256"}})
    assert may({"StringEquals": {"aws:PrincipalArn": f"arn:aws:iam::{ACCOUNT}:user/alice", "aws:userid": "AIDAalice"}})
    assert may({"StringEquals": {"aws:UserAgent": "me"}}, headers={"user-agent": "me"})


def test_conditions_on_tags(direct: Direct) -> None:
    direct.ask("root", "PUT", "/bucket/k", body=b"x", headers={"x-amz-tagging": "level=open&Who=a"})
    direct.ask("root", "PUT", "/bucket/other", body=b"x", headers={"x-amz-tagging": "level=closed"})
    condition = {"StringEquals": {"s3:ExistingObjectTag/level": "open"}}
    direct.users.documents["alice"] = [allow("s3:GetObject", "s3:ListBucket", Condition=condition), allow("s3:List*")]
    assert direct.ask("alice", "GET", "/bucket/k").status == 200
    assert direct.ask("alice", "GET", "/bucket/other").code == "AccessDenied"
    assert direct.ask("alice", "GET", "/bucket/missing").code == "AccessDenied"
    condition = {"ForAllValues:StringEquals": {"s3:RequestObjectTagKeys": ["a", "b"]},
                 "StringEquals": {"s3:RequestObjectTag/a": "1"}}  # fmt: skip
    direct.users.documents["alice"] = [allow("s3:PutObject", "s3:PutObjectTagging", Condition=condition)]
    assert direct.ask("alice", "PUT", "/bucket/n", headers={"x-amz-tagging": "a=1&b=2"}).status == 200
    assert direct.ask("alice", "PUT", "/bucket/n", headers={"x-amz-tagging": "a=1&c=2"}).code == "AccessDenied"
    assert direct.ask("alice", "PUT", "/bucket/n").code == "AccessDenied"


def test_a_key_that_is_taken_away_is_unknown_at_once(direct: Direct) -> None:
    direct.users.documents["alice"] = [allow("s3:*")]
    assert direct.ask("alice", "GET", "/bucket/k").status == 200
    del direct.users.documents["alice"]
    assert direct.ask("alice", "GET", "/bucket/k").code == "InvalidAccessKeyId"


def test_retention_is_bypassed_by_who_may(direct: Direct) -> None:
    bypass = {"x-amz-bypass-governance-retention": "true"}
    body = DELETE
    for method, path, query, content in (("DELETE", "/bucket/k", {}, b""), ("POST", "/bucket", {"delete": ""}, body)):
        direct.users.documents["alice"] = [allow("s3:DeleteObject")]
        assert b"AccessDenied" in direct.ask("alice", method, path, query, content, bypass).body
        direct.users.documents["alice"] = [allow("s3:DeleteObject", "s3:BypassGovernanceRetention")]
        assert b"AccessDenied" not in direct.ask("alice", method, path, query, content, bypass).body
