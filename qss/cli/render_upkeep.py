"""Scrub, repair, durability and warming, for people."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from typing import Any

from rich.console import Console
from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn, TimeElapsedColumn, TransferSpeedColumn

from qss.cli.render import console, pairs, table_of, utc
from qss.config.units import human_size

Document = dict[str, Any]


def scrub(document: Document) -> None:
    rows = [
        ("scrub", document["state"]),
        ("this round", f"{document['segments_done']} of {document['segments']} segments, {document['shards']} shards,"
                       f" {human_size(document['bytes'])} hashed"),
        ("found", f"{document['bad']} shards missing or damaged, {document['silent']} did not answer"),
        ("rounds done", str(document["rounds"]) + (f", the last on {utc(document['ended_ns'])} UTC"
                                                   if document["ended_ns"] else "")),
        ("repair", _repair(document["repair"])),
    ]  # fmt: skip
    console().print(pairs(rows))
    if document["locations"]:
        table = table_of("location", "sound", "missing or damaged", "no answer")
        for name, each in document["locations"].items():
            table.add_row(name, str(each["sound"]), str(each["bad"]), str(each["silent"]))
        console().print("", table)


def repair(document: Document) -> None:
    rows = [
        ("repair", _repair(document)),
        ("given up", ", ".join(document["given_up"]) or "no location"),
        ("repaired", f"{document['repaired_segments']} segments, {human_size(document['repaired_bytes'])}"),
    ]
    console().print(pairs(rows))


def _repair(document: Document) -> str:
    if not document["queued"]:
        return "nothing waits"
    spare = document["least_spare"]
    close = f"may lose {spare} shards more" if spare >= 0 else "cannot be read now"
    return f"{document['queued']} segments wait, {document['in_flight']} under way; the one closest to loss {close}"


def durability(document: Document) -> None:
    assumed, stands, keys = document["assumptions"], document["standing"], document["keys"]
    default = document["default"]
    rows = [
        ("code", f"any {document['k']} of {document['k'] + document['m']} shards give everything back"),
        ("overhead", f"{document['overhead']:.2f} bytes stored for each byte"),
        ("may be lost", f"any {document['may_be_lost']} of the {document['k'] + document['m']} locations of a segment"),
        ("must be up", f"of {document['locations']} locations {document['reads_need']} to read,"
                       f" {document['uploads_need']} to upload (a majority says who writes),"
                       f" {document['safe_needs']} until what is written counts as safe (k + offload.margin)"),
        ("chance of loss", f"1 in {1 / document['loss_a_year']:,.0f} a year ({document['nines']:.1f} nines)"),
        ("of which", f"{document['nines_independent']:.1f} nines for locations failing one by one,"
                     f" {document['nines_common_mode']:.1f} for all at once: no code helps against that"),
        ("assumed", f"a location loses what it holds once in {assumed['mttf_years']:g} years, a lost shard is somewhere"
                    f" again in {assumed['repair_days']:g} days, all at once {assumed['common_mode']:g} a year"),
        ("weakest segment", _weakest(stands)),
        ("key", f"{keys['here']} copy on this machine ({keys['file']}), {keys['slots']} ways to open it;"
                f" others cannot be counted from here: keep at least {keys['advised']} elsewhere"),
    ]  # fmt: skip
    if (document["k"], document["m"]) != (default["k"], default["m"]):
        usual = f"k={default['k']}, m={default['m']} is the default for {document['locations']} locations"
        rows.append(("note", usual))
    console().print(pairs(rows))


def _weakest(stands: Document | None) -> str:
    if stands is None:
        return "not known: the file system is not mounted, or offload does not answer"
    if stands["weakest"] is None:
        return "nothing is stored yet"
    k, m = stands["weakest_code"]
    spare = stands["weakest_spare"]
    if spare >= m:
        return f"all {stands['segments']} have all their shards"
    close = f"{spare} of its {m} spare shards are left" if spare >= 0 else f"[red]only {k + spare} of {k} shards[/]"
    rest = f"of all shards {stands['missing']} are missing, {stands['silent']} do not answer"
    return f"{stands['weakest']:x}: {close}; {rest}"


@contextlib.contextmanager
def warm_bar(what: str = "bringing back") -> Iterator[Callable[[Document], None]]:
    """On standard error, fed with {"done_bytes", "total_bytes"}."""
    columns = (
        TextColumn("{task.description}"), BarColumn(), DownloadColumn(binary_units=True), TransferSpeedColumn(),
        TimeElapsedColumn(),
    )  # fmt: skip
    with Progress(*columns, console=Console(stderr=True), transient=True) as progress:
        task = progress.add_task(what, total=None)

        def update(document: Document) -> None:
            progress.update(task, total=document["total_bytes"] or None, completed=document["done_bytes"])

        yield update


def warmed(document: Document) -> str:
    line = f"{document['files']} files: {human_size(document['local_bytes'])} of "
    line += f"{human_size(document['total_bytes'])} are on this machine"
    if document["left_bytes"]:
        line += f"; {human_size(document['left_bytes'])} are left where they are: the cache's limits leave no room"
    if document["failed_bytes"]:
        line += f"; {human_size(document['failed_bytes'])} cannot be had now"
    return line + "."


def rewritten(document: Document, dry_run: bool) -> str:
    code = f"k={document['k']}, m={document['m']}"
    if not document["segments"] and not document["journals"]:
        return f"Everything is stored under {code}."
    what = f"{document['segments']} segments, {human_size(document['total_bytes'])}"
    if dry_run:
        line = f"{what}, are stored under another code than {code} and would be written again"
    else:
        line = f"{document['moved']} of {what}, are written again under {code}; the old ones go with the next two roots"
    if document["held"]:
        line += f"; {document['held']} are held by snapshots and stay as they are"
    if document["journals"]:
        line += f"; {document['journals']} journals keep their code until a checkpoint takes their place"
    if document["failed"]:
        line += f"; {document['failed']} could not be moved now: {document['trouble']}"
    return line + "."
