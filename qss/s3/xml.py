"""XML as S3 speaks it: a safe parser (no DTD, no entities, bounded) to small nodes, and a writer."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from typing import Final
from xml.parsers import expat
from xml.sax.saxutils import escape

from qss.errors import CorruptData

XML_BYTES_MAX: Final = 4 * 1024 * 1024
DEPTH_MAX: Final = 16
ELEMENTS_MAX: Final = 100_000
"""The largest documents there are: 10,000 parts of an upload with nine elements each, at most."""
TAG_BYTES_MAX: Final = 16 * 1024
"""Of a start tag with its attributes, which nobody needs here; a quarter of a million of them take seconds."""
_CONTROL: Final = re.compile(r"[\x00-\x08\x0b-\x1f]")
NAMESPACE: Final = "http://s3.amazonaws.com/doc/2006-03-01/"


@dataclass(slots=True)
class Node:
    """An element: local name, text (without that of children), children in order. Attributes are dropped."""

    name: str
    text: str = ""
    children: list[Node] = field(default_factory=list)

    def all(self, name: str) -> Iterator[Node]:
        return (child for child in self.children if child.name == name)

    def find(self, name: str) -> Node | None:
        return next(self.all(name), None)

    def get(self, name: str, default: str = "") -> str:
        """Text of the first child of that name."""
        child = self.find(name)
        return default if child is None else child.text


class _Builder:
    def __init__(self) -> None:
        self.top = Node("")
        self._open = [self.top]
        self._texts: list[list[str]] = [[]]  # pieces of each open element: adding to one string would be quadratic
        self._count = 0

    def start(self, name: str, _: dict[str, str]) -> None:
        if len(self._open) > DEPTH_MAX:
            raise CorruptData("XML is nested too deep")
        self._count += 1
        if self._count > ELEMENTS_MAX:
            raise CorruptData(f"XML has more than {ELEMENTS_MAX} elements")
        node = Node(name.rpartition(":")[2])
        self._open[-1].children.append(node)
        self._open.append(node)
        self._texts.append([])

    def end(self, _: str) -> None:
        self._open.pop().text = "".join(self._texts.pop())

    def text(self, text: str) -> None:
        self._texts[-1].append(text)

    def refuse(self, *_: object) -> None:
        raise CorruptData("XML with a DOCTYPE or entities is not accepted")


def parse(data: bytes) -> Node:
    """The root element. Raises CorruptData, nothing else."""
    if len(data) > XML_BYTES_MAX:
        raise CorruptData(f"XML is longer than {XML_BYTES_MAX} bytes")
    if len(data) > TAG_BYTES_MAX:
        _check_tags(data)
    builder = _Builder()
    parser = expat.ParserCreate()
    parser.buffer_text = True
    parser.StartElementHandler = builder.start
    parser.EndElementHandler = builder.end
    parser.CharacterDataHandler = builder.text
    parser.StartDoctypeDeclHandler = builder.refuse
    parser.EntityDeclHandler = builder.refuse
    try:
        parser.Parse(data, True)
    except (expat.ExpatError, ValueError, LookupError) as error:  # ValueError, LookupError: odd declared encodings
        raise CorruptData(f"XML does not parse: {error}") from None
    return builder.top.children[0]


def _check_tags(data: bytes) -> None:
    """Before the parser works on it. In UTF-16 as well: there, too, "<" and ">" are these bytes."""
    if data.count(b"<") > 2 * ELEMENTS_MAX + 1000:
        raise CorruptData("XML has too many tags")
    for tag in data.split(b"<")[1:]:
        if len(tag) > TAG_BYTES_MAX and tag.find(b">", 0, TAG_BYTES_MAX) < 0:
            raise CorruptData("XML has too long a tag")


def element(name: str, *content: str) -> str:
    """An element around content that is XML already."""
    return f"<{name}>{''.join(content)}</{name}>"


def leaf(name: str, value: object) -> str:
    """An element around text, which is escaped. True and False are written small."""
    text = str(value).lower() if isinstance(value, bool) else escape(str(value), {'"': "&quot;"})
    if not text.isprintable():  # as AWS: a reference, though XML 1.0 knows none to most of these
        text = _CONTROL.sub(lambda found: f"&#x{ord(found[0]):x};", text)
    return f"<{name}>{text}</{name}>"


def document(name: str, content: Iterable[str], *, namespace: bool = True) -> bytes:
    """A whole document with S3's namespace."""
    xmlns = f' xmlns="{NAMESPACE}"' if namespace else ""
    text = f'<?xml version="1.0" encoding="UTF-8"?>\n<{name}{xmlns}>{"".join(content)}</{name}>'
    return text.encode("utf-8", "replace")
