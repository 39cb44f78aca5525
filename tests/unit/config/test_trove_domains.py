"""Domains whose subdomains are buckets, in trove.toml."""

from __future__ import annotations

from pathlib import Path

import pytest

from qss.config.trove import load_trove
from qss.errors import ConfigInvalid


@pytest.mark.parametrize(
    ("text", "domains"),
    [('domain = "s3.test"', ("s3.test",)), ('domain = ["s3.test", "other.test"]', ("s3.test", "other.test"))],
)
def test_one_or_more(tmp_path: Path, text: str, domains: tuple[str, ...]) -> None:
    file = tmp_path / "trove.toml"
    file.write_text(text)
    assert load_trove(file) == {"domains": domains}


def test_numbers_are_no_names(tmp_path: Path) -> None:
    file = tmp_path / "trove.toml"
    file.write_text("domain = 1")
    with pytest.raises(ConfigInvalid, match="domain"):
        load_trove(file)
