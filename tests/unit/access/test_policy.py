"""Policies: AWS's own examples, every operator, what is refused when it is written, and that a Deny never loses."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from qss.errors import CorruptData
from qss.s3.access.globs import compile_pattern, matches
from qss.s3.access.operators import OPERATORS, make_condition
from qss.s3.access.policy import ACCOUNT, Ask, Flavor, Principal, Verdict, is_public, parse_policy
from qss.s3.access.vocabulary import ACTIONS

ALICE, BOB, ROOT = Principal("alice", "AIDA1"), Principal("bob", "AIDA2"), Principal("")
ALLOW, DENY, NOTHING = Verdict.ALLOW, Verdict.DENY, Verdict.NOTHING
ARN = "arn:aws:s3:::"


def ask(action: str, resource: str, who: Principal | None = ALICE, **context: str) -> Ask:
    found = {name.replace("__", ":").replace("_", "-").lower(): (value,) for name, value in context.items()}
    if who is not None and not who.is_root:
        found["aws:username"] = (who.name,)
        found["aws:userid"] = (who.user_id,)
    return Ask(who, f"s3:{action}", ARN + resource, found)


def statement(effect: str = "Allow", **fields: Any) -> dict[str, Any]:
    return {"Effect": effect, "Action": "s3:*", "Resource": "*", **fields}


def all_may(**fields: Any) -> dict[str, Any]:
    """A statement of bucket b's policy."""
    return statement(**{"Principal": "*", "Resource": f"{ARN}b/*", **fields})


def user_policy(*statements: dict[str, Any], version: str = "2012-10-17") -> str:
    return json.dumps({"Version": version, "Statement": list(statements)})


# -- "Identity-based policy examples for Amazon S3", "Examples of Amazon S3 bucket policies", abridged to what decides
HOME_FOLDER = user_policy(
    {"Sid": "AllowListing", "Effect": "Allow", "Action": ["s3:ListBucket"], "Resource": [f"{ARN}home"],
     "Condition": {"StringLike": {"s3:prefix": ["", "home/", "home/${aws:username}/*"]}}},
    {"Sid": "Own", "Effect": "Allow", "Action": ["s3:*"], "Resource": [f"{ARN}home/home/${{aws:username}}",
                                                                       f"{ARN}home/home/${{aws:username}}/*"]},
)  # fmt: skip
IP_RANGE = json.dumps(
    {
        "Version": "2012-10-17",
        "Id": "S3PolicyId1",
        "Statement": [
            {"Sid": "IPAllow", "Effect": "Deny", "Principal": "*", "Action": "s3:*",
             "Resource": [f"{ARN}b", f"{ARN}b/*"],
             "Condition": {"NotIpAddress": {"aws:SourceIp": ["192.0.2.0/24", "2001:DB8:1234:5678::/64"]}}},
            {"Sid": "All", "Effect": "Allow", "Principal": "*", "Action": "s3:GetObject", "Resource": f"{ARN}b/*"},
        ],
    }
)  # fmt: skip
ONLY_TLS = json.dumps(
    {
        "Statement": {
            "Effect": "Deny", "Principal": {"AWS": "*"}, "Action": "s3:*", "Resource": [f"{ARN}b", f"{ARN}b/*"],
            "Condition": {"Bool": {"aws:SecureTransport": "false"}},
        }
    }
)  # fmt: skip
ENCRYPTED_ONLY = json.dumps(
    {
        "Version": "2012-10-17",
        "Statement": [
            {"Sid": "Wrong", "Effect": "Deny", "Principal": "*", "Action": "s3:PutObject", "Resource": f"{ARN}b/*",
             "Condition": {"StringNotEquals": {"s3:x-amz-server-side-encryption": "AES256"}}},
        ],
    }
)  # fmt: skip
REFERER = json.dumps(
    {
        "Version": "2012-10-17",
        "Statement": [
            {"Effect": "Allow", "Principal": "*", "Action": ["s3:GetObject", "s3:GetObjectVersion"],
             "Resource": f"{ARN}b/*", "Condition": {"StringLike": {"aws:Referer": ["http://www.example.com/*"]}}},
        ],
    }
)  # fmt: skip
ONLY_OWNERS = json.dumps(
    {
        "Version": "2012-10-17",
        "Statement": [
            {"Effect": "Deny", "NotPrincipal": {"AWS": [f"arn:aws:iam::{ACCOUNT}:user/bob", ACCOUNT]},
             "Action": "s3:*", "Resource": [f"{ARN}b", f"{ARN}b/*"]},
        ],
    }
)  # fmt: skip

EXAMPLES = [
    (HOME_FOLDER, ask("ListBucket", "home", s3__prefix="home/alice/x"), ALLOW),
    (HOME_FOLDER, ask("ListBucket", "home", s3__prefix=""), ALLOW),
    (HOME_FOLDER, ask("ListBucket", "home", s3__prefix="home/bob/"), NOTHING),
    (HOME_FOLDER, ask("ListBucket", "home"), NOTHING),
    (HOME_FOLDER, ask("GetObject", "home/home/alice/deep/er"), ALLOW),
    (HOME_FOLDER, ask("GetObject", "home/home/bob/deep/er"), NOTHING),
    (HOME_FOLDER, ask("GetObject", "home/home/alicex"), NOTHING),
    (IP_RANGE, ask("GetObject", "b/k", None, aws__sourceip="192.0.2.188"), ALLOW),
    (IP_RANGE, ask("GetObject", "b/k", None, aws__sourceip="::ffff:192.0.2.188"), ALLOW),
    (IP_RANGE, ask("GetObject", "b/k", None, aws__sourceip="2001:db8:1234:5678::1"), ALLOW),
    (IP_RANGE, ask("GetObject", "b/k", None, aws__sourceip="192.0.3.1"), DENY),
    (IP_RANGE, ask("GetObject", "b/k", None), DENY),
    (IP_RANGE, ask("PutObject", "b/k", None, aws__sourceip="192.0.2.1"), NOTHING),
    (ONLY_TLS, ask("GetObject", "b/k", ROOT, aws__securetransport="false"), DENY),
    (ONLY_TLS, ask("GetObject", "b/k", ROOT, aws__securetransport="true"), NOTHING),
    (ENCRYPTED_ONLY, ask("PutObject", "b/k", **{"s3__x_amz_server_side_encryption": "AES256"}), NOTHING),
    (ENCRYPTED_ONLY, ask("PutObject", "b/k", **{"s3__x_amz_server_side_encryption": "aws:kms"}), DENY),
    (ENCRYPTED_ONLY, ask("PutObject", "b/k"), DENY),
    (REFERER, ask("GetObject", "b/k", None, aws__referer="http://www.example.com/a"), ALLOW),
    (REFERER, ask("GetObject", "b/k", None, aws__referer="http://evil.example/?http://www.example.com/"), NOTHING),
    (REFERER, ask("GetObject", "b/k", None), NOTHING),
    (ONLY_OWNERS, ask("GetObject", "b/k", ALICE), DENY),
    (ONLY_OWNERS, ask("GetObject", "b/k", None), DENY),
    (ONLY_OWNERS, ask("GetObject", "b/k", BOB), NOTHING),
    (ONLY_OWNERS, ask("GetObject", "b/k", ROOT), NOTHING),
]  # fmt: skip


@pytest.mark.parametrize(("text", "asked", "verdict"), EXAMPLES)
def test_examples_of_the_documentation(text: str, asked: Ask, verdict: Verdict) -> None:
    flavor = Flavor.BUCKET if "rincipal" in text else Flavor.USER
    assert parse_policy(text, flavor, "b").decide(asked) is verdict


# -- operators: name, value in the policy, value in the request or None, result
CONDITIONS: list[tuple[str, str | list[str], str | tuple[str, ...] | None, bool]] = [
    ("StringEquals", "a", "a", True),
    ("StringEquals", "a", "A", False),
    ("StringEquals", ["b", "a"], "a", True),
    ("StringEquals", "a*", "ab", False),
    ("StringEquals", "a", None, False),
    ("StringEqualsIfExists", "a", None, True),
    ("StringEqualsIfExists", "a", "b", False),
    ("StringNotEquals", "a", "b", True),
    ("StringNotEquals", ["a", "b"], "b", False),
    ("StringNotEquals", "a", None, True),
    ("StringEqualsIgnoreCase", "Ab", "aB", True),
    ("StringNotEqualsIgnoreCase", "Ab", "aB", False),
    ("StringLike", "a*c?", "abbbcd", True),
    ("StringLike", "a*c?", "abbbc", False),
    ("StringLike", "${*}", "*", True),
    ("StringLike", "${*}", "x", False),
    ("StringLike", "${?}${$}", "?$", True),
    ("StringLike", "${aws:username}/*", "alice/x", True),
    ("StringLike", "${aws:username}/*", "bob/x", False),
    ("StringLike", "${aws:nothing}/*", "/x", False),
    ("StringLike", "${aws:nothing, 'me'}/*", "me/x", True),
    ("StringNotLike", "a*", "b", True),
    ("StringNotLike", "a*", "ab", False),
    ("NumericEquals", "10", "10.0", True),
    ("NumericEquals", "10", "ten", False),
    ("NumericNotEquals", "10", "11", True),
    ("NumericLessThan", "10", "9", True),
    ("NumericLessThan", "10", "10", False),
    ("NumericLessThanEquals", "10", "10", True),
    ("NumericGreaterThan", "10", "10", False),
    ("NumericGreaterThan", "9", "10", True),
    ("NumericGreaterThanEquals", "10", "10", True),
    ("DateEquals", "2013-06-30T00:00:00Z", "2013-06-30T02:00:00+02:00", True),
    ("DateNotEquals", "2013-06-30T00:00:00Z", "2013-06-30T00:00:00Z", False),
    ("DateLessThan", "2013-06-30", "2013-06-29T23:59:59Z", True),
    ("DateLessThan", "1372550400", "2013-06-30T00:00:00Z", False),
    ("DateLessThanEquals", "1372550400", "2013-06-30T00:00:00Z", True),
    ("DateGreaterThan", "2013-06-30T00:00:00Z", "2013-07-01T00:00:00Z", True),
    ("DateGreaterThanEquals", "2013-06-30T00:00:00Z", "2013-06-30T00:00:00Z", True),
    ("DateGreaterThan", "2013-06-30T00:00:00Z", "yesterday", False),
    ("Bool", "true", "true", True),
    ("Bool", "TRUE", "true", True),
    ("Bool", "false", "true", False),
    ("Bool", "false", "", False),
    ("BoolIfExists", "true", None, True),
    ("BinaryEquals", "QmluYXJ5VmFsdWVJbkJhc2U2NA==", "QmluYXJ5VmFsdWVJbkJhc2U2NA==", True),
    ("BinaryEquals", "QmluYXJ5VmFsdWVJbkJhc2U2NA==", "AAAA", False),
    ("IpAddress", "203.0.113.0/24", "203.0.113.77", True),
    ("IpAddress", "203.0.113.77", "203.0.113.77", True),
    ("IpAddress", "203.0.113.0/24", "203.0.114.1", False),
    ("IpAddress", "203.0.113.0/24", "not an address", False),
    ("IpAddress", "0.0.0.0/0", "::1", False),
    ("NotIpAddress", "203.0.113.0/24", "203.0.114.1", True),
    ("NotIpAddress", "203.0.113.0/24", "203.0.113.1", False),
    ("ArnEquals", "arn:aws:iam::*:user/a*", "arn:aws:iam::1:user/ab", True),
    ("ArnLike", "arn:aws:iam::*:user/a", "arn:aws:iam::1:user/b", False),
    ("ArnNotEquals", "arn:aws:iam::1:user/a", "arn:aws:iam::1:user/b", True),
    ("ArnNotLike", "arn:aws:iam::1:user/*", "arn:aws:iam::1:user/b", False),
    ("Null", "true", None, True),
    ("Null", "true", "x", False),
    ("Null", "false", "x", True),
    ("Null", "false", None, False),
    ("ForAllValues:StringEquals", ["a", "b"], ("a", "b", "a"), True),
    ("ForAllValues:StringEquals", ["a", "b"], ("a", "c"), False),
    ("ForAllValues:StringEquals", ["a", "b"], None, True),
    ("ForAllValues:StringNotEquals", ["a", "b"], ("c", "d"), True),
    ("ForAllValues:StringNotEquals", ["a", "b"], ("c", "a"), False),
    ("ForAnyValue:StringEquals", ["a", "b"], ("c", "b"), True),
    ("ForAnyValue:StringEquals", ["a", "b"], ("c", "d"), False),
    ("ForAnyValue:StringEquals", ["a"], None, False),
    ("ForAnyValue:StringLike", ["a*"], ("b", "ax"), True),
    ("ForAnyValue:StringNotEquals", ["a"], ("a",), False),
    ("ForAnyValue:StringNotEquals", ["a"], ("a", "b"), True),
    ("ForAnyValue:StringEqualsIfExists", ["a"], None, False),
]


@pytest.mark.parametrize(("operator", "wanted", "found", "result"), CONDITIONS)
def test_operators(operator: str, wanted: Any, found: Any, result: bool) -> None:
    values = wanted if isinstance(wanted, list) else [wanted]
    context: dict[str, tuple[str, ...]] = {"aws:username": ("alice",)}
    if found is not None:
        context["s3:prefix"] = found if isinstance(found, tuple) else (found,)
    condition = make_condition(operator, "S3:Prefix", values, variables=True)
    assert condition.holds(context) is result


def test_every_operator_is_in_the_table() -> None:
    told = {name.lower().removeprefix("forallvalues:").removeprefix("foranyvalue:") for name, *_ in CONDITIONS}
    assert {name.removesuffix("ifexists") for name in told} == OPERATORS


def test_conditions_are_joined_by_and_their_values_by_or() -> None:
    text = user_policy(
        statement(
            Condition={
                "StringEquals": {"s3:prefix": ["a", "b"], "s3:delimiter": "/"},
                "Bool": {"aws:SecureTransport": True},
            }
        )
    )
    policy = parse_policy(text, Flavor.USER)
    good = {"s3__prefix": "b", "s3__delimiter": "/", "aws__securetransport": "true"}
    assert policy.decide(ask("ListBucket", "b", **good)) is ALLOW
    for name in good:
        assert policy.decide(ask("ListBucket", "b", **{**good, name: "other"})) is NOTHING


def test_variables_are_text_in_policies_of_2008() -> None:
    for version, verdict in (("2012-10-17", ALLOW), ("2008-10-17", NOTHING)):
        policy = parse_policy(
            user_policy(statement(Resource=f"{ARN}b/${{aws:username}}"), version=version), Flavor.USER
        )
        assert policy.decide(ask("GetObject", "b/alice")) is verdict


def test_a_value_of_a_variable_is_no_pattern() -> None:
    """Somebody called "*" must not get everybody's folder."""
    policy = parse_policy(user_policy(statement(Resource=f"{ARN}b/${{aws:username}}/*")), Flavor.USER)
    star = Principal("*", "AIDA3")
    assert policy.decide(ask("GetObject", "b/alice/k", star)) is NOTHING
    assert policy.decide(ask("GetObject", "b/*/k", star)) is ALLOW


def test_a_variable_without_value_allows_nothing_and_still_denies_the_rest() -> None:
    unknown = f"{ARN}b/${{aws:PrincipalTag/team}}/*"
    for fields in ({"Resource": unknown}, {"NotResource": unknown}):
        value = {name: each for name, each in statement(**fields).items() if len(fields) == 1}
        if "NotResource" in fields:
            del value["Resource"]
        assert parse_policy(user_policy(value), Flavor.USER).decide(ask("GetObject", "b/x")) is NOTHING
    denying = {"Effect": "Deny", "Action": "*", "NotResource": unknown}
    assert parse_policy(user_policy(denying), Flavor.USER).decide(ask("GetObject", "b/x")) is DENY


def test_not_action() -> None:
    value = {"Effect": "Allow", "NotAction": ["s3:Delete*", "s3:PutObject"], "Resource": "*"}
    policy = parse_policy(user_policy(value), Flavor.USER)
    assert policy.decide(ask("GetObject", "b/k")) is ALLOW
    assert policy.decide(ask("DeleteObject", "b/k")) is NOTHING
    assert policy.decide(ask("putobject", "b/k")) is NOTHING, "actions are the same in any case"


def test_the_account_in_a_deny_is_everybody_of_it_and_in_an_allow_its_root() -> None:
    def policy(effect: str):
        value = statement(effect, Principal={"AWS": f"arn:aws:iam::{ACCOUNT}:root"}, Resource=f"{ARN}b/*")
        return parse_policy(json.dumps({"Statement": [value]}), Flavor.BUCKET, "b")

    assert policy("Deny").decide(ask("GetObject", "b/k", ALICE)) is DENY
    assert policy("Deny").decide(ask("GetObject", "b/k", None)) is NOTHING
    assert policy("Allow").decide(ask("GetObject", "b/k", ALICE)) is NOTHING
    assert policy("Allow").decide(ask("GetObject", "b/k", ROOT)) is ALLOW


BAD_BUCKET_POLICIES: list[tuple[Any, str]] = [
    ("", "valid JSON"),
    ("[]", "valid JSON"),
    ('{"Statement": ' + "[" * 5000, "valid JSON"),
    ({"Statement": []}, "Statement"),
    ({"Version": "2020-01-01", "Statement": [all_may()]}, "version"),
    ({"Statement": [statement(Principal="*", Resource=f"{ARN}other/*")]}, "invalid resource"),
    ({"Statement": [statement(Principal="*", Resource=f"{ARN}b-other/*")]}, "invalid resource"),
    ({"Statement": [statement(Principal="*", Resource="*")]}, "invalid resource"),
    ({"Statement": [statement(Resource=f"{ARN}b/*")]}, "Principal"),
    ({"Statement": [statement(Principal="alice", Resource=f"{ARN}b/*")]}, "Invalid principal"),
    ({"Statement": [statement(Principal={"AWS": "arn:aws:iam::000000000000:user/*"}, Resource=f"{ARN}b/*")]},
     "Invalid principal"),
    ({"Statement": [statement(Principal={"Service": "x"}, Resource=f"{ARN}b/*")]}, "Invalid principal"),
    ({"Statement": [{**statement(NotPrincipal="*", Resource=f"{ARN}b/*")}]}, "NotPrincipal"),
    ({"Statement": [statement("allow", Principal="*", Resource=f"{ARN}b/*")]}, "effect"),
    ({"Statement": [all_may(Action="s3:GetObjekt")]}, "invalid action"),
    ({"Statement": [all_may(Action="ec2:*")]}, "invalid action"),
    ({"Statement": [statement(Principal="*", Resource=f"{ARN}b", Action="s3:GetObject")]}, "does not apply"),
    ({"Statement": [all_may(Action="s3:ListBucket")]}, "does not apply"),
    ({"Statement": [all_may(NotAction="s3:GetObject")]}, "NotAction"),
    ({"Statement": [all_may(Extra=1)]}, "Unknown field"),
    ({"Statement": [all_may(Condition={"StringIs": {"s3:prefix": "a"}})]},
     "Invalid Condition type"),
    ({"Statement": [all_may(Condition={"StringEquals": {"s3:prefx": "a"}})]},
     "invalid condition key"),
    ({"Statement": [all_may(Condition={"IpAddress": {"aws:SourceIp": "a"}})]},
     "address"),
    ({"Statement": [all_may(Condition={"NumericEquals": {"s3:max-keys": "a"}})]},
     "number"),
    ({"Statement": [all_may(Condition={"Bool": {"aws:SecureTransport": "1"}})]},
     "true or false"),
    ({"Statement": [all_may(Condition={"DateLessThan": {"aws:CurrentTime": "x"}})]},
     "date"),
    ({"Statement": [all_may(Condition={"NullIfExists": {"s3:prefix": "true"}})]},
     "Invalid Condition type"),
    ({"Statement": [all_may(Resource=f"{ARN}b/${{aws:username")], "Version": "2012-10-17"}, "variable"),
    ({"Statement": [all_may(Sid="a")] * 2}, "unique"),
    ('{"Statement": [{"Effect": "Deny", "Effect": "Allow", "Principal": "*", "Action": "s3:*", '
     f'"Resource": "{ARN}b/*"}}]}}', "twice"),
    ({"Statement": [all_may()] * 300}, "Policies must not be longer"),
]  # fmt: skip


@pytest.mark.parametrize(("value", "said"), BAD_BUCKET_POLICIES)
def test_what_is_not_understood_is_refused_when_it_is_written(value: Any, said: str) -> None:
    with pytest.raises(CorruptData, match=said):
        parse_policy(value if isinstance(value, str) else json.dumps(value), Flavor.BUCKET, "b")


def test_a_policy_of_a_user_names_no_principal() -> None:
    with pytest.raises(CorruptData, match="principal"):
        parse_policy(user_policy(statement(Principal="*")), Flavor.USER)


PUBLIC = [
    (all_may(), True),
    (statement(Principal={"AWS": "*"}, Resource=f"{ARN}b/*"), True),
    (statement("Deny", Principal="*", Resource=f"{ARN}b/*"), False),
    (statement(Principal={"AWS": f"arn:aws:iam::{ACCOUNT}:user/alice"}, Resource=f"{ARN}b/*"), False),
    (all_may(Condition={"IpAddress": {"aws:SourceIp": "203.0.113.0/24"}}), False),
    (all_may(Condition={"IpAddress": {"aws:SourceIp": "0.0.0.0/1"}}), True),
    (all_may(Condition={"NotIpAddress": {"aws:SourceIp": "1.2.3.4"}}), True),
    (all_may(Condition={"StringLike": {"aws:Referer": "http://a/*"}}), True),
    (all_may(Condition={"StringEquals": {"aws:username": "alice"}}), False),
    (all_may(Condition={"StringLike": {"aws:username": "a*"}}), True),
]  # fmt: skip


@pytest.mark.parametrize(("value", "public"), PUBLIC)
def test_the_meaning_of_public(value: dict[str, Any], public: bool) -> None:
    assert is_public(parse_policy(json.dumps({"Statement": [value]}), Flavor.BUCKET, "b")) is public


# -- properties
_actions = st.sampled_from(["s3:GetObject", "s3:PutObject", "s3:Get*", "s3:*", "*", "s3:???Object"])
_resources = st.sampled_from([f"{ARN}b/*", f"{ARN}b/k", f"{ARN}b/k?", f"{ARN}*", "*", f"{ARN}b/${{aws:username}}"])
_conditions = st.sampled_from(
    [{}, {"StringEquals": {"s3:prefix": "p"}}, {"StringNotLike": {"s3:prefix": "p*"}}, {"Null": {"s3:prefix": "true"}}]
)
_statements = st.builds(
    lambda effect, action, resource, condition: {
        "Effect": effect, "Action": action, "Resource": resource, "Condition": condition,
    },
    st.sampled_from(["Allow", "Deny"]), _actions, _resources, _conditions,
)  # fmt: skip
_asks = st.builds(
    lambda action, key, who, prefix: ask(action, f"b/{key}", who, **({} if prefix is None else {"s3__prefix": prefix})),
    st.sampled_from(["GetObject", "PutObject"]),
    st.sampled_from(["k", "kx", "alice", "z"]),
    st.sampled_from([ALICE, BOB]),
    st.none() | st.sampled_from(["p", "q"]),
)


@given(statements=st.lists(_statements, min_size=1, max_size=6), asked=_asks, data=st.data())
def test_a_deny_never_loses_and_order_never_matters(statements: list[Any], asked: Ask, data: Any) -> None:
    each = [parse_policy(user_policy(one), Flavor.USER).decide(asked) for one in statements]
    verdict = parse_policy(user_policy(*statements), Flavor.USER).decide(asked)
    assert verdict is (DENY if DENY in each else ALLOW if ALLOW in each else NOTHING)
    shuffled = data.draw(st.permutations(statements))
    assert parse_policy(user_policy(*shuffled), Flavor.USER).decide(asked) is verdict


_pattern_text = st.text(st.sampled_from("ab*?$"), max_size=8)


@given(pattern=_pattern_text, text=st.text(st.sampled_from("abc"), max_size=8))
def test_globs_are_what_regular_expressions_say(pattern: str, text: str) -> None:
    import re

    expected = "".join({"*": ".*", "?": "."}.get(each, re.escape(each)) for each in pattern)
    pieces = compile_pattern(pattern, variables=False).resolve(lambda _: None)
    assert pieces is not None
    assert matches(pieces, text) is (re.fullmatch(expected, text) is not None)


def test_no_pattern_takes_exponential_steps() -> None:
    pieces = compile_pattern("*a" * 200, variables=False).resolve(lambda _: None)
    assert pieces is not None
    assert not matches(pieces, "a" * 199 + "b")
    assert matches(pieces, "a" * 1024)


@given(text=st.text(max_size=60) | st.binary(max_size=60).map(lambda data: data.decode("latin-1")))
def test_reading_raises_nothing_but_corrupt_data(text: str) -> None:
    for flavor in Flavor:
        for untrusted in (text, json.dumps({"Statement": text}), json.dumps({"Statement": {"Effect": text}})):
            try:
                parse_policy(untrusted, flavor, "b")
            except (CorruptData, UnicodeEncodeError):
                continue


def test_every_action_can_stand_in_a_policy() -> None:
    for action, kind in ACTIONS.items():
        parse_policy(user_policy(statement(Action=action)), Flavor.USER)
        if kind != "service":
            resource = f"{ARN}b/*" if kind == "object" else f"{ARN}b"
            value = statement(Action=action, Principal="*", Resource=resource)
            parse_policy(json.dumps({"Statement": value}), Flavor.BUCKET, "b")
