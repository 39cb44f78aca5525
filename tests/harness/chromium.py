"""Debian's Chromium, driven by Playwright: a person in front of the console.

Where there is none, tests that want it are skipped, and say so; in CI they fail.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from playwright.sync_api import Browser, Page

WAIT_MS = 30_000
"""How long a condition may take on a busy machine; nothing is ever waited for by time."""

_NOTES_STAY = """
    const { setTimeout: wait } = window;
    window.setTimeout = (work, ms, ...more) => (ms >= 5000 ? 0 : wait(work, ms, ...more));
"""
"""What the page takes away after some seconds stays: a slow test sees it, too."""


def chromium() -> Iterator[Browser]:
    """For a fixture: `browser = pytest.fixture(scope="module")(chromium)`."""
    program = shutil.which("chromium")
    try:
        from playwright.sync_api import expect, sync_playwright
    except ImportError:
        program = None
    if program is None:
        lacking = "chromium or playwright is not installed: scripts/setup --test brings both"
        pytest.fail(lacking) if os.environ.get("CI") else pytest.skip(lacking)
    expect.set_options(timeout=WAIT_MS)
    with sync_playwright() as driver:
        browser = driver.chromium.launch(executable_path=program)
        yield browser
        browser.close()


@contextmanager
def window(browser: Browser, **options: Any) -> Iterator[Page]:
    """A page with cookies and storage of its own. Fails when a script of it fails, an alert opens or something was
    refused by the page's Content-Security-Policy."""
    context = browser.new_context(**options)
    context.set_default_timeout(WAIT_MS)
    context.add_init_script(_NOTES_STAY)
    page = context.new_page()
    wrong: list[str] = []
    page.on("pageerror", lambda error: wrong.append(f"a script failed: {error}"))
    page.on("console", lambda said: wrong.append(said.text) if "Content Security Policy" in said.text else None)

    def opened(dialog: Any) -> None:
        wrong.append(f"an alert: {dialog.message}")
        dialog.dismiss()

    page.on("dialog", opened)
    try:
        yield page
        assert wrong == []
    finally:
        context.close()
