"""Policy documents: JSON → checked values, and what they decide about one request. Pure.

Sources: "Grammar of the IAM JSON policy language", "Policy evaluation logic", "Examples of Amazon S3 bucket policies".
Whatever cannot be understood is refused when it is written, never skipped when it is evaluated: a Deny that this
program did not understand would be a hole.
"""

from __future__ import annotations

import enum
import re
from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, Final

from qss.errors import CorruptData
from qss.s3 import strict_json
from qss.s3.access.globs import Pattern, Wild, compile_pattern, matches
from qss.s3.access.operators import Condition, Context, make_condition, single
from qss.s3.access.vocabulary import ACTIONS, is_condition_key

POLICY_BYTES_MAX: Final = 20 * 1024
STATEMENTS_MAX: Final = 256
ACCOUNT: Final = "000000000000"
"""The one account of a node, until tenants come."""
ROOT_ARN: Final = f"arn:aws:iam::{ACCOUNT}:root"
BUCKET_ARN: Final = "arn:aws:s3:::"
_VERSIONS: Final = ("2012-10-17", "2008-10-17")
_SID: Final = re.compile(r"[A-Za-z0-9 _-]*")
_USER_ARN: Final = re.compile(r"arn:aws:iam::(\d{12}|\*):user/[\w+=,.@/*-]{1,128}", re.ASCII)
_NAMES: Final = {
    "Sid", "Effect", "Principal", "NotPrincipal", "Action", "NotAction", "Resource", "NotResource", "Condition",
}  # fmt: skip


class Flavor(enum.Enum):
    """What a policy is attached to."""

    USER = "user"  # no principals: it is the user's own
    BUCKET = "bucket"  # principals; resources of one bucket only


class Verdict(enum.Enum):
    """What policies say. Together: one DENY is a DENY; else one ALLOW is an ALLOW."""

    NOTHING = 0
    ALLOW = 1
    DENY = 2

    def joined(self, other: Verdict) -> Verdict:
        return max(self, other, key=lambda verdict: verdict.value)


@dataclass(frozen=True, slots=True)
class Principal:
    """Who asks. None in its place means anonymous."""

    name: str  # of the user; "" for root
    user_id: str = ""  # never given again, also when the name is

    @property
    def is_root(self) -> bool:
        return not self.name

    @property
    def arn(self) -> str:
        return ROOT_ARN if self.is_root else f"arn:aws:iam::{ACCOUNT}:user/{self.name}"


@dataclass(frozen=True, slots=True)
class Ask:
    """One action on one resource by one principal."""

    principal: Principal | None
    action: str  # "s3:GetObject"
    resource: str  # ARN; "arn:aws:s3:::*" for what has none
    context: Context


@dataclass(frozen=True, slots=True)
class Who:
    """Principals of a statement."""

    everyone: bool
    account: bool  # the account, which means its root and, in a Deny, all of its users
    arns: tuple[str, ...] = ()

    def covers(self, principal: Principal | None, *, deny: bool) -> bool:
        if self.everyone:
            return True
        if principal is None:
            return False
        return principal.arn in self.arns or (self.account and (deny or principal.is_root))


@dataclass(frozen=True, slots=True)
class Statement:
    """Compiled. `who` None: the user the policy is attached to."""

    sid: str
    allow: bool
    who: Who | None
    not_who: bool
    actions: tuple[Pattern, ...]  # lower-case
    not_action: bool
    resources: tuple[Pattern, ...]
    not_resource: bool
    conditions: tuple[Condition, ...]

    def applies(self, ask: Ask) -> bool:
        return (
            self._principal(ask)
            and any(matches_plain(each, ask.action.lower()) for each in self.actions) != self.not_action
            and self._resource(ask)
            and all(condition.holds(ask.context) for condition in self.conditions)
        )

    def _principal(self, ask: Ask) -> bool:
        if self.who is None:
            return True
        if self.not_who:  # NotPrincipal with Deny; covers() of an exempt user's account must not exempt others
            return not (ask.principal is not None and self.who.covers(ask.principal, deny=False)) and not (
                self.who.everyone
            )
        return self.who.covers(ask.principal, deny=not self.allow)

    def _resource(self, ask: Ask) -> bool:
        value_of = single(ask.context)
        hit = False
        for pattern in self.resources:
            if pattern.literal is not None:
                hit = hit or pattern.literal == ask.resource
                continue
            pieces = pattern.resolve(value_of)
            if pieces is None:  # a variable without value: no allowance of any kind, but NotResource still denies
                if self.allow:
                    return False
                continue
            hit = hit or matches(pieces, ask.resource)
        return hit != self.not_resource


def matches_plain(pattern: Pattern, text: str) -> bool:
    """Match a pattern that has no variables."""
    if pattern.literal is not None:
        return pattern.literal == text
    pieces = pattern.resolve(lambda _: None)
    return pieces is not None and matches(pieces, text)


@dataclass(frozen=True, slots=True)
class Policy:
    statements: tuple[Statement, ...]

    def decide(self, ask: Ask) -> Verdict:
        verdict = Verdict.NOTHING
        for statement in self.statements:
            if statement.applies(ask):
                if not statement.allow:
                    return Verdict.DENY
                verdict = Verdict.ALLOW
        return verdict

    def mentions(self, prefix: str) -> bool:
        """Whether a condition key or a variable begins so (lower-case): then its value has to be found out."""
        for statement in self.statements:
            if any(condition.key.startswith(prefix) for condition in statement.conditions):
                return True
            texts = [pattern.text for pattern in statement.resources]
            texts += [wanted.text for condition in statement.conditions for wanted in condition.wanted]
            if any("${" + prefix in text.lower() for text in texts):
                return True
        return False


# -- reading
def parse_policy(text: str | bytes, flavor: Flavor, bucket: str = "") -> Policy:
    """Read and check a document. Raises CorruptData, whose text is for the client."""
    data = text.encode() if isinstance(text, str) else text
    if len(data) > POLICY_BYTES_MAX:
        raise CorruptData(f"Policies must not be longer than {POLICY_BYTES_MAX} bytes")
    value = _json(data)
    if not isinstance(value, dict):
        raise CorruptData("Policies must be valid JSON and the first byte must be '{'")
    if unknown := value.keys() - {"Version", "Id", "Statement"}:
        raise CorruptData(f"Unknown field {min(unknown)}")
    version = value.get("Version", "2008-10-17")
    if version not in _VERSIONS:
        raise CorruptData("The policy must contain a valid version string")
    if not isinstance(value.get("Id", ""), str):
        raise CorruptData("Id is no text")
    statements = _listed(value.get("Statement"))
    if not statements or len(statements) > STATEMENTS_MAX:
        raise CorruptData("Missing required field Statement")
    variables = version == "2012-10-17"
    parsed = tuple(_statement(each, flavor, bucket, variables) for each in statements)
    sids = [statement.sid for statement in parsed if statement.sid]
    if len(set(sids)) != len(sids):
        raise CorruptData("Statement IDs (SID) in a single policy must be unique.")
    return Policy(parsed)


@lru_cache(1024)
def kept_policy(text: str | bytes, flavor: Flavor, bucket: str = "") -> Policy:
    """A policy that was checked when it was written. Cached: it is asked for with every request."""
    return parse_policy(text, flavor, bucket)


def _json(data: bytes) -> Any:
    try:
        return strict_json.load(data)
    except CorruptData as error:
        if str(error) != strict_json.NOT_JSON:
            raise
        raise CorruptData("Policies must be valid JSON and the first byte must be '{'") from None


def _listed(value: Any) -> list[Any]:
    return value if isinstance(value, list) else [] if value is None else [value]


def _texts(value: Any, what: str) -> list[str]:
    values = _listed(value)
    if not values or not all(isinstance(each, str) for each in values):
        raise CorruptData(f"Missing required field {what}" if value is None else f"{what} must be text")
    return values


def _one_of(value: Mapping[str, Any], name: str) -> tuple[Any, bool]:
    """The element or its Not- form; exactly one."""
    if (name in value) == (f"Not{name}" in value):
        raise CorruptData(f"Missing required field {name}" if name not in value else f"{name} and Not{name}")
    return (value[name], False) if name in value else (value[f"Not{name}"], True)


def _statement(value: Any, flavor: Flavor, bucket: str, variables: bool) -> Statement:
    if not isinstance(value, dict):
        raise CorruptData("A statement is no object")
    if unknown := value.keys() - _NAMES:
        raise CorruptData(f"Unknown field {min(unknown)}")
    sid, effect = value.get("Sid", ""), value.get("Effect")
    if not isinstance(sid, str) or not _SID.fullmatch(sid):
        raise CorruptData("Statement IDs (SID) must be alpha-numeric")
    if effect not in ("Allow", "Deny"):
        raise CorruptData(f"Invalid effect : {effect}" if effect is not None else "Missing required field Effect")
    who, not_who = _who(value, flavor, allow=effect == "Allow")
    actions, not_action = _one_of(value, "Action")
    resources, not_resource = _one_of(value, "Resource")
    compiled = tuple(_resource(each, flavor, bucket, variables) for each in _texts(resources, "Resource"))
    wanted = tuple(_action(each) for each in _texts(actions, "Action"))
    if flavor is Flavor.BUCKET:
        _check_reach(wanted, compiled, not_action=not_action, not_resource=not_resource)
    conditions = _conditions(value.get("Condition", {}), variables)
    return Statement(sid, effect == "Allow", who, not_who, wanted, not_action, compiled, not_resource, conditions)


def _who(value: Mapping[str, Any], flavor: Flavor, *, allow: bool) -> tuple[Who | None, bool]:
    if flavor is Flavor.USER:
        if "Principal" in value or "NotPrincipal" in value:
            raise CorruptData("Policy document should not specify a principal.")
        return None, False
    principal, negated = _one_of(value, "Principal")
    if negated and allow:
        raise CorruptData("Allow with NotPrincipal is not allowed.")
    if principal == "*":
        return Who(everyone=True, account=False), negated
    if not isinstance(principal, dict) or principal.keys() - {"AWS", "CanonicalUser"} or not principal:
        raise CorruptData("Invalid principal in policy")
    everyone = account = False
    arns = []
    for text in [each for listed in principal.values() for each in _texts(listed, "Principal")]:
        if text == "*":
            everyone = True
        elif text in (ACCOUNT, ROOT_ARN):
            account = True
        elif _USER_ARN.fullmatch(text) and "*" not in text:
            arns.append(text)
        else:
            raise CorruptData("Invalid principal in policy")
    return Who(everyone, account, tuple(arns)), negated


def _action(text: str) -> Pattern:
    pattern = compile_pattern(text.lower(), variables=False)
    if text == "*":
        return pattern
    service, colon, _ = text.partition(":")
    if not colon or service.lower() != "s3" or not any(matches_plain(pattern, each.lower()) for each in ACTIONS):
        raise CorruptData("Policy has invalid action")
    return pattern


def _resource(text: str, flavor: Flavor, bucket: str, variables: bool) -> Pattern:
    pattern = compile_pattern(text, variables=variables)
    if flavor is Flavor.USER:
        if text != "*" and not text.startswith(BUCKET_ARN):
            raise CorruptData(f'Resource {text} must be in ARN format or "*".')
        return pattern
    own = BUCKET_ARN + bucket
    if text != own and not text.startswith(f"{own}/"):
        raise CorruptData("Policy has invalid resource")
    return pattern


def _check_reach(
    actions: tuple[Pattern, ...], resources: tuple[Pattern, ...], *, not_action: bool, not_resource: bool
) -> None:
    """AWS refuses actions that none of the resources can have: mostly a forgotten "/*"."""
    if not_action or not_resource:
        return
    on_bucket = any("/" not in each.text for each in resources)
    on_objects = any("/" in each.text for each in resources)
    for pattern in actions:
        kinds = {ACTIONS[each] for each in ACTIONS if matches_plain(pattern, each.lower())}
        if not (("object" in kinds and on_objects) or ("bucket" in kinds and on_bucket)):
            raise CorruptData("Action does not apply to any resource(s) in statement")


def _conditions(value: Any, variables: bool) -> tuple[Condition, ...]:
    if not isinstance(value, dict):
        raise CorruptData("Condition is no object")
    made = []
    for operator, keys in value.items():
        if not isinstance(keys, dict) or not keys:
            raise CorruptData(f"Condition {operator} is no object")
        for key, listed in keys.items():
            if not is_condition_key(key):
                raise CorruptData("Policy has an invalid condition key")
            made.append(make_condition(operator, key, _scalars(listed), variables=variables))
    return tuple(made)


def _scalars(value: Any) -> list[str]:
    """Values of a condition: text, or numbers and truth values as JSON has them."""
    texts = []
    for each in _listed(value):
        if not isinstance(each, str | int | float):
            raise CorruptData("A condition's value is neither text nor number")
        texts.append(str(each).lower() if isinstance(each, bool) else str(each))
    return texts


def is_public(policy: Policy) -> bool:
    """Source: "The meaning of public": some Allow for everyone that no condition with fixed values narrows down."""
    return any(
        statement.allow
        and statement.who is not None
        and statement.who.everyone
        and not any(_narrows(condition) for condition in statement.conditions)
        for statement in policy.statements
    )


_NARROWING: Final = {
    "aws:sourceip", "aws:sourcearn", "aws:sourcevpc", "aws:sourcevpce", "aws:sourceaccount", "aws:userid",
    "aws:username", "aws:principalarn", "aws:principalaccount", "aws:principalorgid",
}  # fmt: skip


def _narrows(condition: Condition) -> bool:
    """Fixed values of keys that say who or whence; no wildcard, no variable, no half of the internet."""
    positive = condition.operator in (
        "stringequals", "stringlike", "arnequals", "arnlike", "stringequalsignorecase", "ipaddress",
    )  # fmt: skip
    if not positive or condition.if_exists or condition.key not in _NARROWING:
        return False
    for wanted in condition.wanted:
        if isinstance(wanted.ready, Pattern):
            if any(not isinstance(piece, str) for piece in wanted.ready.pieces):
                return False
        else:
            length, bits = wanted.ready.prefixlen, wanted.ready.max_prefixlen  # type: ignore[attr-defined]
            if length < (8 if bits == 32 else 32):
                return False
    return True


ANY_RESOURCE: Final = f"{BUCKET_ARN}*"
assert compile_pattern(ANY_RESOURCE).pieces[-1] is Wild.ANY
