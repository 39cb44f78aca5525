"""The document of `qssctl durability`: what the code costs and survives, how likely loss is, how things stand."""

from __future__ import annotations

from dataclasses import asdict
from typing import Final

from qss.config import Settings
from qss.control.messages import Json
from qss.errors import CorruptData
from qss.formats.keyfile import decode_key_file
from qss.offload.durability import Assumptions, default_code, durability, nines

KEY_COPIES_LEAST: Final = 2


def document(settings: Settings, standing: Json) -> dict[str, Json]:
    """`standing`: the offload process's answer, None while it is not known."""
    k, m, count = settings.offload.k, settings.offload.m, len(settings.locations)
    assumed = Assumptions()
    facts = durability(k, m, assumed)
    default_k, default_m = default_code(count)
    return {
        "k": k,
        "m": m,
        "locations": count,
        "overhead": facts.overhead,
        "may_be_lost": m,
        "reads_need": k,
        "uploads_need": count // 2 + 1,
        "safe_needs": max(settings.offload.safe_shards, count // 2 + 1),
        "loss_a_year": facts.total,
        "nines": facts.nines,
        "nines_independent": nines(facts.markov),
        "nines_windows": nines(facts.windows),
        "nines_common_mode": nines(assumed.common_mode),
        "assumptions": asdict(assumed),
        "default": {"k": default_k, "m": default_m},
        "standing": standing,
        "keys": key_copies(settings),
    }


def key_copies(settings: Settings) -> dict[str, Json]:
    """What this machine can know of copies of the key: its own key file. Others must be counted by a person."""
    try:
        slots = len(decode_key_file(settings.key_file.read_bytes()).slots)
    except (OSError, CorruptData):
        slots = 0
    return {"file": str(settings.key_file), "here": int(slots > 0), "slots": slots, "advised": KEY_COPIES_LEAST}
