"""The recovery sheet: what a person needs on paper on the day the machine is gone. Pure."""

from __future__ import annotations

import shlex
import textwrap
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Final
from urllib.parse import quote

from qss.app.locations import place_of
from qss.config import Settings

COPIES_MIN: Final = 2
"""Of the key, besides the one on the machine: one at hand, one where no fire reaches both."""
REGION_DEFAULT: Final = "us-east-1"
_WIDTH: Final = 100
_WORDS_IN_A_ROW: Final = 6


def sheet_path(config: Path) -> Path:
    """Where `init` leaves it: beside the configuration."""
    return config.with_name(f"{config.stem}-recovery.txt")


def recovery_sheet(settings: Settings, fs_id: str, kinds: Sequence[str], now_ns: int, words: str | None = None) -> str:
    """A printable text. `kinds`: of the slots in the key file; `now_ns`: since 1970; `words`: the 24, if they are
    wanted on it. Without them nothing of it is secret."""
    code, spare = settings.offload.k, settings.offload.m
    name, day = settings.source.stem, datetime.fromtimestamp(now_ns // 10**9, UTC).strftime("%Y-%m-%d")
    return "\n".join(
        [
            f"RECOVERY SHEET of the QSS file system {name}",
            "=" * 60,
            f"Made on {day}. Print it, and keep it away from the machine.",
            "",
            f"File system  {name}, id {fs_id}",
            f"Code         any {code} of {code + spare} shards give everything back; {spare} locations may be lost",
            f"Key          {settings.key_file}{_locks(kinds)}",
            f"Settings     {settings.source}",
            "",
            "Locations (their secret keys are not on this sheet: keep those too)",
            *(f"  {each.name:<12} {place_of(each)}" for each in settings.locations),
            "",
            *_paragraph(
                f"The key: without it nobody reads anything again, we neither. Keep at least {COPIES_MIN} copies "
                "besides the one on the machine: one at hand, one in another building. A copy is the key file (and its "
                "passphrase, if it has one), or the 24 words. Prove that a copy opens the file system, now and every "
                "year: qssctl key verify --key COPY --remote, or qssctl --words key verify --remote."
            ),
            "",
            *_words(words),
            "",
            "When the machine is gone: install QSS on another one, then run there",
            "",
            *_command(settings, ["--key", "KEY"], []),
            "",
            "with the key file instead of KEY, or, with the 24 words and no key file,",
            "",
            *_command(settings, [], ["--words"]),
            "",
            *_paragraph(
                f"Any {code} of the locations are enough; leave out those that are lost. SECRET-… are files (mode 0600)"
                " with the secret keys of the locations. With a copy of the settings file the locations need "
                "not be named: qssctl --config FILE recover --key KEY. Then: qssctl mount DIR."
            ),
            "",
        ]
    )


def _locks(kinds: Sequence[str]) -> str:
    if "raw" in kinds:
        return " (not locked: whoever has the file has the key)"
    return f" (opens by {' or '.join(sorted(set(kinds)))})" if kinds else ""


def _words(words: str | None) -> list[str]:
    if words is None:
        return [
            "The 24 words are not on this sheet. qssctl key sheet --with-words prints them on it;",
            "whoever reads them can read everything.",
        ]
    each = words.split()
    rows = [each[at : at + _WORDS_IN_A_ROW] for at in range(0, len(each), _WORDS_IN_A_ROW)]
    numbered = [
        "  " + "".join(f"{row * _WORDS_IN_A_ROW + at + 1:>2} {word:<10}" for at, word in enumerate(found)).rstrip()
        for row, found in enumerate(rows)
    ]
    return ["The 24 words. THEY ARE THE KEY: whoever reads them can read everything.", *numbered]


def _command(settings: Settings, key: list[str], before: list[str]) -> list[str]:
    lines = [shlex.join(["qssctl", *before, "--config", settings.source.name, "recover", *key])]
    for each in settings.locations:
        given = [
            f"name={each.name}",
            f"access_key={quote(each.access_key, safe='')}",
            f"secret_key_file=SECRET-{each.name}",
        ]
        given += [f"region={each.region}"] if each.region != REGION_DEFAULT else []
        lines.append("    --location " + shlex.quote(f"{place_of(each)}?{'&'.join(given)}"))
    return [f"  {line} \\" for line in lines[:-1]] + [f"  {lines[-1]}"]


def _paragraph(text: str) -> list[str]:
    return textwrap.wrap(text, _WIDTH)
