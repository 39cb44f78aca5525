"""XML of a lifecycle configuration ↔ rules. Pure. Refusals and their texts as AWS has them."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from typing import Final

from qss.errors import CorruptData
from qss.s3.dates import iso, iso_date_ns
from qss.s3.documents import xml_body
from qss.s3.errors import Code, S3Error
from qss.s3.lifecycle import Filter, Rule
from qss.s3.lock import DAY_NS
from qss.s3.parse import check_tags
from qss.s3.scalars import integer_of
from qss.s3.xml import Node, document, element, leaf

RULES_MAX: Final = 1000
ID_CHARACTERS_MAX: Final = 255
NEWER_KEPT_MAX: Final = 100
_DAYS_MAX: Final = 2**31 - 1
_FILTERS: Final = ("Prefix", "Tag", "ObjectSizeGreaterThan", "ObjectSizeLessThan", "And")


def rules_body(data: bytes) -> tuple[Rule, ...]:
    """Raises S3Error for what AWS refuses, NOT_IMPLEMENTED for transitions: there is one storage class."""
    nodes = list(xml_body(data, "LifecycleConfiguration").all("Rule"))
    if not 1 <= len(nodes) <= RULES_MAX:
        raise S3Error(Code.MALFORMED_XML)
    rules = tuple(_rule(node) for node in nodes)
    if len({rule.id for rule in rules}) != len(rules):
        raise S3Error(Code.INVALID_ARGUMENT, "Rule ID must be unique. Found same ID for more than one rule")
    return rules


def rules_of(data: bytes) -> tuple[Rule, ...]:
    """Of a document that was rendered here. Raises CorruptData."""
    try:
        return rules_body(data)
    except S3Error as error:
        raise CorruptData(f"a stored lifecycle configuration does not read: {error}") from error


def _rule(node: Node) -> Rule:
    if node.find("Transition") is not None or node.find("NoncurrentVersionTransition") is not None:
        raise S3Error(Code.NOT_IMPLEMENTED, "Transitions are not implemented: there is one storage class.")
    status = node.get("Status")
    if status not in ("Enabled", "Disabled"):
        raise S3Error(Code.MALFORMED_XML)
    found = _filter(node)
    days, date_ns, lone_markers = _expiration(node.find("Expiration"))
    noncurrent_days, newer_kept = _noncurrent(node.find("NoncurrentVersionExpiration"))
    abort = node.find("AbortIncompleteMultipartUpload")
    abort_days = None if abort is None else _days(abort, "DaysAfterInitiation", "AbortIncompleteMultipartUpload")
    rule = Rule(
        _id(node), status == "Enabled", found, days, date_ns, lone_markers, noncurrent_days, newer_kept, abort_days
    )
    if not lone_markers and all(each is None for each in (days, date_ns, noncurrent_days, abort_days)):
        raise S3Error(Code.INVALID_REQUEST, "At least one action needs to be specified in a rule")
    if abort_days is not None and not found.names_only:
        raise S3Error(
            Code.INVALID_REQUEST, "AbortIncompleteMultipartUpload cannot be specified with Tags or object sizes"
        )
    if lone_markers and not found.names_only:
        raise S3Error(Code.INVALID_REQUEST, "ExpiredObjectDeleteMarker cannot be specified with Tags or object sizes")
    return rule


def _id(node: Node) -> str:
    text = node.get("ID")
    if len(text) > ID_CHARACTERS_MAX:
        raise S3Error(Code.INVALID_ARGUMENT, "ID length should not exceed allowed limit of 255")
    return text or hashlib.sha256(repr(node).encode()).hexdigest()[:32]


def _filter(node: Node) -> Filter:
    found, prefix = node.find("Filter"), node.find("Prefix")
    if (found is None) == (prefix is None):
        raise S3Error(Code.MALFORMED_XML)
    if found is None:
        return Filter(node.get("Prefix"), old_style=True)
    said = [child for child in found.children if child.name in _FILTERS]
    if len(said) > 1 or len(said) != len(found.children):
        raise S3Error(Code.MALFORMED_XML)
    inner = found.find("And") or found
    tags = tuple((tag.get("Key"), tag.get("Value")) for tag in inner.all("Tag"))
    check_tags(tags)
    larger, smaller = (_size(inner, f"ObjectSize{name}Than") for name in ("Greater", "Less"))
    if larger is not None and smaller is not None and larger >= smaller - 1:
        raise S3Error(Code.INVALID_REQUEST, "ObjectSizeLessThan has to be larger than ObjectSizeGreaterThan")
    return Filter(inner.get("Prefix"), tags, larger, smaller)


def _size(node: Node, name: str) -> int | None:
    child = node.find(name)
    return None if child is None else _number(child.text, 2**63)


def _number(text: str, top: int) -> int:
    value = integer_of(text.strip(), 19)
    if value is None or abs(value) > top:
        raise S3Error(Code.MALFORMED_XML)
    return value


def _days(node: Node, name: str, action: str, *, least: int = 1) -> int:
    value = _number(node.get(name), _DAYS_MAX)
    if value < least:
        raise S3Error(Code.INVALID_ARGUMENT, f"'{name}' for {action} action must be a positive integer")
    return value


def _expiration(node: Node | None) -> tuple[int | None, int | None, bool]:
    """Days, date, ExpiredObjectDeleteMarker: one of them."""
    if node is None:
        return None, None, False
    if len(node.children) != 1:
        raise S3Error(Code.MALFORMED_XML)
    match node.children[0].name:
        case "Days":
            return _days(node, "Days", "Expiration"), None, False
        case "Date":
            try:
                date_ns = iso_date_ns(node.get("Date"))
            except CorruptData:
                raise S3Error(Code.MALFORMED_XML) from None
            if date_ns % DAY_NS:
                raise S3Error(Code.INVALID_ARGUMENT, "'Date' must be at midnight GMT")
            return None, date_ns, False
        case "ExpiredObjectDeleteMarker":
            return None, None, node.get("ExpiredObjectDeleteMarker") == "true"
    raise S3Error(Code.MALFORMED_XML)


def _noncurrent(node: Node | None) -> tuple[int | None, int]:
    if node is None:
        return None, 0
    days = _days(node, "NoncurrentDays", "NoncurrentVersionExpiration")
    newer = node.find("NewerNoncurrentVersions")
    kept = 0 if newer is None else _number(newer.text, _DAYS_MAX)
    if newer is not None and not 1 <= kept <= NEWER_KEPT_MAX:
        raise S3Error(Code.INVALID_ARGUMENT, f"'NewerNoncurrentVersions' must be between 1 and {NEWER_KEPT_MAX}")
    return days, kept


# -- rules → XML
def rules_document(rules: Sequence[Rule]) -> bytes:
    """`rules_body` of it gives the rules again."""
    return document("LifecycleConfiguration", [_rule_element(rule) for rule in rules])


def _rule_element(rule: Rule) -> str:
    content = [leaf("ID", rule.id), leaf("Status", "Enabled" if rule.enabled else "Disabled")]
    content.append(_filter_element(rule.filter))
    if rule.days is not None:
        content.append(element("Expiration", leaf("Days", rule.days)))
    if rule.date_ns is not None:
        content.append(element("Expiration", leaf("Date", iso(rule.date_ns))))
    if rule.lone_markers:
        content.append(element("Expiration", leaf("ExpiredObjectDeleteMarker", True)))
    if rule.noncurrent_days is not None:
        kept = [leaf("NewerNoncurrentVersions", rule.newer_kept)] if rule.newer_kept else []
        inner = leaf("NoncurrentDays", rule.noncurrent_days), *kept
        content.append(element("NoncurrentVersionExpiration", *inner))
    if rule.abort_days is not None:
        content.append(element("AbortIncompleteMultipartUpload", leaf("DaysAfterInitiation", rule.abort_days)))
    return element("Rule", *content)


def _filter_element(found: Filter) -> str:
    if found.old_style:
        return leaf("Prefix", found.prefix)
    parts = [leaf("Prefix", found.prefix)] if found.prefix else []
    parts += [element("Tag", leaf("Key", name), leaf("Value", value)) for name, value in found.tags]
    if found.larger_than is not None:
        parts.append(leaf("ObjectSizeGreaterThan", found.larger_than))
    if found.smaller_than is not None:
        parts.append(leaf("ObjectSizeLessThan", found.smaller_than))
    if len(parts) > 1:
        return element("Filter", element("And", *parts))
    return element("Filter", *(parts or [leaf("Prefix", "")]))
