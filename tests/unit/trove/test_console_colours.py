"""Text of the console can be read: contrast of at least 4.5 : 1 (WCAG 2.2, 1.4.3), light and dark."""

from __future__ import annotations

import re
from importlib import resources

import pytest

STYLE = resources.files("qss.trove").joinpath("web/style.css").read_text(encoding="utf-8")
COLOURS = {name: both for name, *both in re.findall(r"--([a-z-]+): light-dark\((#\w{6}), (#\w{6})\)", STYLE)}
TEXTS = ("text", "dim", "accent", "danger", "good", "warn")
GROUNDS = ("ground", "card", "side", "soft")


def luminance(colour: str) -> float:
    parts = [int(colour[at : at + 2], 16) / 255 for at in (1, 3, 5)]
    linear = [part / 12.92 if part <= 0.04045 else ((part + 0.055) / 1.055) ** 2.4 for part in parts]
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]


def contrast(one: str, other: str) -> float:
    low, high = sorted((luminance(one), luminance(other)))
    return (high + 0.05) / (low + 0.05)


@pytest.mark.parametrize("theme", [0, 1], ids=["light", "dark"])
def test_text_stands_out(theme: int) -> None:
    pairs = [(text, ground) for text in TEXTS for ground in GROUNDS] + [
        ("on-accent", "accent"),
        ("on-accent", "danger"),
    ]
    low = {pair: contrast(*(COLOURS[name][theme] for name in pair)) for pair in pairs}
    assert {pair: round(value, 2) for pair, value in low.items() if value < 4.5} == {}


def test_contrast_is_what_the_standard_says() -> None:
    assert contrast("#000000", "#ffffff") == pytest.approx(21)
    assert contrast("#777777", "#ffffff") == pytest.approx(4.48, abs=0.01)
