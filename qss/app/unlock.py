"""Opening the key of a file system with what the user offers, and asking for what is missing.

A passphrase comes from, first wins: --passphrase-fd, --passphrase-file, the mount option or configuration
`passphrase_file`, $QSS_PASSPHRASE_FILE (its path), the systemd credential `qss-passphrase`, the terminal. It never
stands in arguments or in the environment itself.
"""

from __future__ import annotations

import getpass
import os
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Final

from qss.config import Settings, UnlockOptions, environment
from qss.errors import Refused
from qss.offload.keyfiles import (
    PASSPHRASE_BYTES_MAX,
    passphrase_in,
    read_identity_file,
    read_key_file,
    read_passphrase_file,
    read_words_file,
)
from qss.offload.keys import MasterKey, key_of_phrase
from qss.offload.slots import Offer

CREDENTIAL: Final = "qss-passphrase"
"""Name of the systemd credential: LoadCredential=qss-passphrase:/path."""


def open_key(settings: Settings) -> MasterKey:
    """Whatever file system it is the key of. Raises Refused, WrongKey, CorruptData."""
    if settings.opened is not None:
        return settings.opened
    return open_file(key_path(settings), settings.unlock, settings.mount.passphrase_file)


def key_path(settings: Settings) -> Path:
    return settings.unlock.key_file or settings.key_file


def open_file(path: Path, unlock: UnlockOptions, passphrase_file: Path | None = None) -> MasterKey:
    """The key in a key file, or that of the recovery words. Raises Refused, WrongKey, CorruptData."""
    if by_words(unlock):
        return key_of_words(unlock)
    offer = offer_of(unlock, passphrase_file)
    return read_key_file(path, offer.passphrase, offer.seed)


def by_words(unlock: UnlockOptions) -> bool:
    return unlock.words or unlock.words_file is not None


def key_of_words(unlock: UnlockOptions) -> MasterKey:
    """Of the words in the named file, or typed. Raises Refused, CorruptData."""
    if unlock.words_file is not None:
        return key_of_phrase(read_words_file(unlock.words_file))
    if not is_asking_possible():
        raise Refused("there is nobody to type the recovery words: name a file with --words-file")
    print("The 24 recovery words, in one line (they are shown while you type):", file=sys.stderr)
    return key_of_phrase(sys.stdin.readline(4096))


def offer_of(unlock: UnlockOptions, passphrase_file: Path | None = None) -> Offer:
    """What the key file may be opened with. Raises Refused for an identity that is not one."""
    seed = read_identity_file(unlock.identity) if unlock.identity is not None else None
    return Offer(passphrase_source(unlock, passphrase_file, environment()), seed)


def passphrase_source(
    unlock: UnlockOptions, passphrase_file: Path | None, environ: Mapping[str, str]
) -> Callable[[], str] | None:
    """Where the passphrase comes from; nothing is read yet. None: nowhere."""
    if unlock.passphrase_fd is not None:
        handle = unlock.passphrase_fd
        return lambda: read_passphrase_fd(handle)
    path = unlock.passphrase_file or passphrase_file
    if path is None and environ.get("QSS_PASSPHRASE_FILE"):
        path = Path(environ["QSS_PASSPHRASE_FILE"])
    if path is None and environ.get("CREDENTIALS_DIRECTORY"):
        credential = Path(environ["CREDENTIALS_DIRECTORY"]) / CREDENTIAL
        path = credential if credential.exists() else None
    if path is not None:
        found = path
        return lambda: read_passphrase_file(found)
    return (lambda: ask("Passphrase of the key: ")) if is_asking_possible() else None


def read_passphrase_fd(handle: int) -> str:
    """Up to the end or the first line end, from a pipe or file that we were started with. Raises Refused."""
    data = b""
    try:
        while b"\n" not in data and len(data) <= PASSPHRASE_BYTES_MAX:
            part = os.read(handle, PASSPHRASE_BYTES_MAX + 1)
            if not part:
                break
            data += part
    except OSError as error:
        raise Refused(f"no passphrase can be read from the file descriptor {handle}: {error.strerror}") from error
    return passphrase_in(data, f"the file descriptor {handle}")


# -- the terminal
def is_asking_possible() -> bool:
    """Is somebody there to answer? Only where standard input is a terminal: a service must never wait for words."""
    return sys.stdin is not None and sys.stdin.isatty()


def ask(prompt: str) -> str:
    """A passphrase, typed unseen. Raises Refused at the end of input."""
    try:
        return getpass.getpass(prompt, sys.stderr)
    except EOFError:
        raise Refused("no passphrase was typed") from None


def ask_new(what: str) -> str:
    """A new passphrase, typed twice. Raises Refused when both differ, or nobody is there."""
    if not is_asking_possible():
        raise Refused(f"there is nobody to type {what}: name a file with --new-passphrase-file")
    first = ask(f"{what[0].upper()}{what[1:]}: ")
    if ask("Once more: ") != first:
        raise Refused("what was typed the second time is not the same: nothing is changed")
    return first
