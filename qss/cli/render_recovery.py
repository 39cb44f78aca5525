"""Documents of recover and drill, for people."""

from __future__ import annotations

from typing import Any

from rich.text import Text

from qss.cli.render import console, table_of, utc
from qss.cli.session import say
from qss.config.units import human_duration, human_size

FILES_SHOWN = 50
"""Damaged files in a table; the document, and the list in the state directory, have all."""
RANGES_SHOWN = 4

Document = dict[str, Any]


def recovered(report: Document) -> None:
    """Of recover, and of recover --snapshot."""
    when, snapshot = f"{utc(report['point']['cut_ns'])} UTC", report.get("snapshot")
    what = f"the snapshot {snapshot} of {when}" if snapshot else f"the file system of {when}"
    root = f" (root {report['generation']})"
    if not report["restored"] and report.get("skipped_roots"):
        say(f"Not restored: only {what}{root} can be had, and nothing was changed.")
    elif not report["restored"]:
        say(f"Not restored: something of {what}{root} is lost, and nothing was changed.")
    elif snapshot:
        say(f"Restored {what} into {report['state']}: to be read, never written.")
    else:
        say(f"Restored {what}{root} into {report['state']}.")
    if report["restored"]:
        say(f"{report['files']} inodes, {report['segments']} segments; contents are fetched when they are read.")
    for line in report["notes"]:
        say(line)
    losses(report)
    if not report["restored"]:
        say("Bring back locations that did not answer, or restore everything else with qssctl recover --partial.")
        return
    if report["lost_list"]:
        say(f"The list is kept as {report['lost_list']}; reads of these bytes give EIO, everything else is there.")
    elif snapshot:
        say("Nothing of it is missing. What came after it stays at the locations, for a recover without --snapshot.")
    else:
        say("Nothing that root names is missing. What was written after it is lost.")
    say(f"Next: qssctl --config {report['config']} mount DIR")


def losses(report: Document) -> None:
    """Damaged files, and why. Nothing when nothing is lost."""
    files = report["damaged_files"]
    if files:
        table = table_of("damaged", "lost", "of", "bytes")
        for each in files[:FILES_SHOWN]:
            ranges = ", ".join(f"{start}-{stop - 1}" for start, stop in each["ranges"][:RANGES_SHOWN])
            more = ", …" if len(each["ranges"]) > RANGES_SHOWN else ""
            names = "\n".join(each["paths"])
            table.add_row(Text(names), human_size(each["lost_bytes"]), human_size(each["size"]), ranges + more)
        console().print(table)
        if len(files) > FILES_SHOWN:
            say(f"… and {len(files) - FILES_SHOWN} more; --json has all of them.")
    if report["lost_for_snapshots"]:
        say(f"{len(report['lost_for_snapshots'])} segments are lost that snapshots need, and no file of now.")
    if files or report["lost_for_snapshots"]:
        for segment, why in report["lost_segments"][:RANGES_SHOWN]:
            say(f"  segment {segment:016x}: {why.partition(': ')[2] or why}")


def listing(report: Document) -> None:
    """Of recover --list."""
    table = table_of("root", "as of (UTC)", "published (UTC)", "its logs")
    for each in report["roots"]:
        logs = "there" if each["logs_there"] else "[red]lost, or their locations do not answer[/]"
        table.add_row(str(each["generation"]), utc(each["cut_ns"]), utc(each["created_ns"]), logs)
    console().print(table)
    say(f"Root {report['generation']}, of {utc(report['cut_ns'])} UTC, knows {len(report['snapshots'])} snapshots.")
    for each in report["snapshots"]:
        say(f"  {each['name']}  {utc(each['created_ns'])}" + (f"  {each['comment']}" if each["comment"] else ""))
    if not report["majority"]:
        say("Most locations did not answer: a newer root may know others.")
    say("recover --at TIME takes the newest root that is not younger; what has been deleted since may be gone.")


def drilled(report: Document) -> None:
    """Of drill."""
    content, live = report["content"], report["live"]
    size = human_size(report["bytes"])
    say(
        f"Root {report['generation']}, of {utc(report['cut_ns'])} UTC, from {report['answered']} of"
        f" {report['locations']} locations: {report['logs']} logs, {report['files']} inodes, {size} of content in"
        f" {report['segments']} segments."
    )
    for line in report["notes"]:
        say(line)
    if not report["majority"]:
        say("Most locations did not answer: a newer root may be at the others.")
    what = "all content" if content["sample"] is None else f"a sample (--seed {content['seed']})"
    say(
        f"Fetched {what}: {content['stripes']} stripes, {human_size(content['bytes'])}, {content['records']} records, "
        f"all verified; {human_size(content['compared_bytes'])} of it compared with copies here."
    )
    for segment, stripe, why in content["failed"][:FILES_SHOWN]:
        say(f"  segment {segment:016x}, stripe {stripe}: {why}")
    for segment, stripe in content["differs_here"][:FILES_SHOWN]:
        say(f"  segment {segment:016x}, stripe {stripe}: the copy here is damaged, the locations have it whole")
    losses(report)
    if live["why_not"]:
        say(f"Not compared with a live index: {live['why_not']}.")
    else:
        say(f"The live index: {live['rows']} rows compared, {live['different']} differ.")
        for line in live["named"]:
            say(f"  {line}")
    if report["restorable"]:
        say(f"Restorable. Nothing was changed; took {human_duration(report['took_s'])}.")
    else:
        say("NOT restorable as a whole. Nothing was changed.")
