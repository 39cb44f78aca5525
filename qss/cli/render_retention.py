"""Retention documents of the mount process, for people."""

from __future__ import annotations

from typing import Any

from rich.table import Table
from rich.text import Text

from qss.cli.render import console, pairs, table_of
from qss.config.units import human_duration, human_size

Document = dict[str, Any]


def shown(document: Document) -> None:
    """`retention show`."""
    age, free = document["age_s_max"], human_size(document["free_bytes"])
    out = console()
    out.print(
        pairs(
            [
                ("local copies", human_size(document["local_bytes"])),
                ("of them may go", f"{human_size(document['evictable_bytes'])} in {document['copies']} copies"),
                ("not safe elsewhere yet", human_size(document["unsafe_local_bytes"])),
                ("pinned", human_size(document["pinned_bytes"])),
                ("max size", human_size(document["size_bytes_max"])),
                ("max age", _age(age)),
                ("min free", f"{human_size(document['free_bytes_min'])} ({free} are free)"),
            ]
        )
    )
    if document["paths"]:
        table = table_of("path", "max age", "max size")
        for each in document["paths"]:
            size = each["size_bytes_max"]
            table.add_row(Text(each["path"]), _age(each["age_s_max"]), "none" if size is None else human_size(size))
        out.print("", table)
    if document["pins"]:
        out.print("", _pins(document["pins"]))
    if document["next"] or document["kept"]:
        out.print("", _copies(document["next"] + document["kept"]))


def copies(rows: list[Document]) -> None:
    """In the order they go."""
    if rows:
        console().print(_copies(rows))


def pins(rows: list[Document]) -> None:
    if rows:
        console().print(_pins(rows))
    else:
        console().print("Nothing is pinned.")


def _why(row: Document) -> Text:
    if row["pin"]:
        return Text(f"stays: {row['pin']} is pinned")
    return Text(row["reason"] or "not yet")


def _age(seconds: float | None) -> str:
    return "none" if seconds is None else human_duration(seconds)


def _pins(rows: list[Document]) -> Table:
    table = table_of("pinned", "content", "here")
    for row in rows:
        table.add_row(Text(row["path"]), human_size(row["bytes"]), human_size(row["local_bytes"]))
    return table


def _copies(rows: list[Document]) -> Table:
    table = table_of("order", "copy", "size", "unused for", "used", "limits of", "goes")
    for order, row in enumerate(rows, start=1):
        stripe = "whole segment" if row["stripe"] is None else f"stripe {row['stripe']}"
        place, copy = "-" if row["pin"] else str(order), f"{row['segment']:x}, {stripe}"
        used = "again" if row["used_again"] else "once"
        sizes = human_size(row["bytes"]), human_duration(row["idle_s"])
        table.add_row(place, copy, *sizes, used, Text(row["policy"] or "/"), _why(row))
    return table
