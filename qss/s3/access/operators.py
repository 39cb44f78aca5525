"""Condition operators of policies. Pure.

Source: "IAM JSON policy elements: Condition operators" and "Multivalued context keys". A condition is checked when a
policy is read, so that evaluating raises nothing. What AWS says where the key is absent from the request: positive
operators do not match, negated ones and ...IfExists do, ForAllValues matches, ForAnyValue does not.
"""

from __future__ import annotations

import enum
import ipaddress
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from decimal import Decimal, InvalidOperation
from typing import Final

from qss.errors import CorruptData
from qss.s3.access.globs import Pattern, compile_pattern, matches
from qss.s3.dates import iso_date_ns
from qss.s3.scalars import base64_of

Context = Mapping[str, tuple[str, ...]]
"""Condition keys of a request, lower-case, and their values; absent keys are not there."""

_Test = Callable[[str, "Wanted", Context], bool]


class Quantifier(enum.Enum):
    """How several values of a request are taken together."""

    NONE = ""
    ALL = "forallvalues:"
    ANY = "foranyvalue:"


@dataclass(frozen=True, slots=True)
class Wanted:
    """One value of a condition: as written, and made ready for its operator."""

    text: str
    ready: object


@dataclass(frozen=True, slots=True)
class _Operator:
    prepare: Callable[[str, bool], object]  # (text, with variables) → ready; raises CorruptData
    test: _Test
    negated: bool = False


@dataclass(frozen=True, slots=True)
class Condition:
    """One operator on one key. All of a statement's must hold."""

    operator: str  # lower-case, without quantifier and IfExists
    key: str  # lower-case
    wanted: tuple[Wanted, ...]
    quantifier: Quantifier = Quantifier.NONE
    if_exists: bool = False

    def holds(self, context: Context) -> bool:
        values = context.get(self.key)
        if self.operator == "null":
            return any(bool(each.ready) == (values is None) for each in self.wanted)
        if values is None or (not values and self.quantifier is not Quantifier.NONE):
            if self.quantifier is Quantifier.ANY:
                return False
            if self.quantifier is Quantifier.ALL or self.if_exists:
                return True
            return _OPERATORS[self.operator].negated
        operator = _OPERATORS[self.operator]
        each = (self._one(operator, value, context) for value in values)
        if self.quantifier is Quantifier.ANY:
            return any(each)
        if self.quantifier is Quantifier.ALL or operator.negated:
            return all(each)
        return any(each)

    def _one(self, operator: _Operator, value: str, context: Context) -> bool:
        hit = any(operator.test(value, wanted, context) for wanted in self.wanted)
        return hit != operator.negated


def single(context: Context) -> Callable[[str], str | None]:
    """What a policy variable stands for: the one value of its key."""

    def value_of(name: str) -> str | None:
        values = context.get(name)
        return values[0] if values is not None and len(values) == 1 else None

    return value_of


# -- making values ready; CorruptData for what the operator cannot take
def _text(text: str, variables: bool) -> Pattern:
    return compile_pattern(text, variables=variables, wildcards=False)


def _glob(text: str, variables: bool) -> Pattern:
    return compile_pattern(text, variables=variables)


def _number(text: str, _: bool = False) -> Decimal:
    try:
        value = Decimal(text)
    except InvalidOperation:
        raise CorruptData("a numeric condition has a value that is no number") from None
    if not value.is_finite():
        raise CorruptData("a numeric condition has a value that is no number")
    return value


def _moment(text: str, _: bool = False) -> float:
    """Seconds since 1970, from ISO 8601 (a date alone is its midnight, UTC) or from that number."""
    try:
        return float(_number(text))
    except CorruptData:
        pass
    return iso_date_ns(text) / 1e9


def _bool(text: str, _: bool = False) -> bool:
    if text.lower() not in ("true", "false"):
        raise CorruptData("a Bool or Null condition wants true or false")
    return text.lower() == "true"


def _network(text: str, _: bool = False) -> ipaddress.IPv4Network | ipaddress.IPv6Network:
    try:
        return ipaddress.ip_network(text, strict=False)
    except ValueError:
        raise CorruptData("an IpAddress condition has a value that is no address or range") from None


def _binary(text: str, _: bool = False) -> bytes:
    value = base64_of(text)
    if value is None:
        raise CorruptData("a BinaryEquals condition wants base64")
    return value


# -- tests of one value of the request against one value of the condition
def _like(value: str, wanted: Wanted, context: Context) -> bool:
    assert isinstance(wanted.ready, Pattern)
    if wanted.ready.literal is not None:
        return value == wanted.ready.literal
    pieces = wanted.ready.resolve(single(context))
    return pieces is not None and matches(pieces, value)


def _equals_folded(value: str, wanted: Wanted, context: Context) -> bool:
    assert isinstance(wanted.ready, Pattern)
    pieces = wanted.ready.resolve(single(context))
    return pieces is not None and "".join(str(piece) for piece in pieces).casefold() == value.casefold()


def _compared(make: Callable[[str], float | Decimal], compare: Callable[[int], bool]) -> _Test:
    def test(value: str, wanted: Wanted, _: Context) -> bool:
        try:
            mine, theirs = make(value), wanted.ready
        except CorruptData:
            return False
        assert isinstance(theirs, float | Decimal)
        return compare((mine > theirs) - (mine < theirs))

    return test


def _same_bool(value: str, wanted: Wanted, _: Context) -> bool:
    return value.lower() in ("true", "false") and (value.lower() == "true") == wanted.ready


def _same_bytes(value: str, wanted: Wanted, _: Context) -> bool:
    try:
        return _binary(value) == wanted.ready
    except CorruptData:
        return False


def _inside(value: str, wanted: Wanted, _: Context) -> bool:
    try:
        address = ipaddress.ip_address(value)
    except ValueError:
        return False
    if isinstance(address, ipaddress.IPv6Address) and address.ipv4_mapped is not None:
        address = address.ipv4_mapped  # a dual-stack socket tells IPv4 clients so
    network = wanted.ready
    assert isinstance(network, ipaddress.IPv4Network | ipaddress.IPv6Network)
    return address in network


_SIX: Final[Mapping[str, Callable[[int], bool]]] = {
    "equals": lambda order: order == 0,
    "lessthan": lambda order: order < 0,
    "lessthanequals": lambda order: order <= 0,
    "greaterthan": lambda order: order > 0,
    "greaterthanequals": lambda order: order >= 0,
}

_OPERATORS: Final[dict[str, _Operator]] = {
    "stringequals": _Operator(_text, _like),
    "stringnotequals": _Operator(_text, _like, negated=True),
    "stringequalsignorecase": _Operator(_text, _equals_folded),
    "stringnotequalsignorecase": _Operator(_text, _equals_folded, negated=True),
    "stringlike": _Operator(_glob, _like),
    "stringnotlike": _Operator(_glob, _like, negated=True),
    "arnequals": _Operator(_glob, _like),  # AWS: ArnEquals and ArnLike behave identically
    "arnlike": _Operator(_glob, _like),
    "arnnotequals": _Operator(_glob, _like, negated=True),
    "arnnotlike": _Operator(_glob, _like, negated=True),
    **{f"numeric{name}": _Operator(_number, _compared(_number, test)) for name, test in _SIX.items()},
    "numericnotequals": _Operator(_number, _compared(_number, _SIX["equals"]), negated=True),
    **{f"date{name}": _Operator(_moment, _compared(_moment, test)) for name, test in _SIX.items()},
    "datenotequals": _Operator(_moment, _compared(_moment, _SIX["equals"]), negated=True),
    "bool": _Operator(_bool, _same_bool),
    "binaryequals": _Operator(_binary, _same_bytes),
    "ipaddress": _Operator(_network, _inside),
    "notipaddress": _Operator(_network, _inside, negated=True),
    "null": _Operator(_bool, _same_bool),
}

_COPY_SOURCE: Final = "s3:x-amz-copy-source"
OPERATORS: Final = frozenset(_OPERATORS)


def make_condition(name: str, key: str, values: list[str], *, variables: bool) -> Condition:
    """From what a policy says. Raises CorruptData for an operator that does not exist and values it cannot take."""
    rest = name.lower()
    quantifier = next((q for q in (Quantifier.ALL, Quantifier.ANY) if rest.startswith(q.value)), Quantifier.NONE)
    rest = rest.removeprefix(quantifier.value)
    if_exists = rest.endswith("ifexists")
    rest = rest.removesuffix("ifexists")
    operator = _OPERATORS.get(rest)
    if operator is None or (rest == "null" and (if_exists or quantifier is not Quantifier.NONE)):
        raise CorruptData(f"Invalid Condition type : {name}")
    if not values:
        raise CorruptData(f"Condition {name} names no values")
    if key.lower() == _COPY_SOURCE:  # requests may write it with a slash in front: they are compared without
        values = [value.removeprefix("/") for value in values]
    wanted = tuple(Wanted(text, operator.prepare(text, variables)) for text in values)
    return Condition(rest, key.lower(), wanted, quantifier, if_exists)
