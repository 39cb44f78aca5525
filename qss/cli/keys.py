"""key new, add, list, remove, rotate, verify, export, sheet; key recipient new, show (docs/security.md)."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from qss.cli.session import JsonFlag, print_json, say, session_of, warn

if TYPE_CHECKING:
    from qss.app.keyring import Lock

keys = typer.Typer(name="key", help="The key of a file system.", no_args_is_help=True)
recipient = typer.Typer(name="recipient", help="People a key can be wrapped for.", no_args_is_help=True)
keys.add_typer(recipient)

KeyFile = Annotated[Path | None, typer.Option("--key", metavar="FILE", help="[that of the configuration]")]
Passphrase = Annotated[bool, typer.Option("--passphrase", help="Locked by a passphrase, which is asked for.")]
NewFile = Annotated[Path | None, typer.Option("--new-passphrase-file", metavar="FILE", help="With the new passphrase")]
NewFd = Annotated[int | None, typer.Option("--new-passphrase-fd", metavar="N", help="Read the new one from there")]
Recipients = Annotated[
    list[Path] | None,
    typer.Option("--recipient", metavar="FILE", help="Wrapped for the owner of this public key; once for each"),
]
Raw = Annotated[bool, typer.Option("--raw", help="Bare: whoever has the file has the key.")]
Label = Annotated[str, typer.Option("--label", metavar="TEXT", help="What to call the slot")]
Yes = Annotated[bool, typer.Option("--yes", help="Do not ask.")]

SHORT = 12
"""Characters; what is shorter is warned of. Words drawn at random are what is hard to guess: 8 or more."""


def add_to(app: typer.Typer) -> None:
    app.add_typer(keys)


@keys.command("new")
def key_new(
    out: Annotated[Path, typer.Option("--out", metavar="FILE", help="Where to write it")] = Path("key"),
    passphrase: Passphrase = False,
    new_passphrase_file: NewFile = None,
    new_passphrase_fd: NewFd = None,
    recipients: Recipients = None,
    label: Label = "",
    as_json: Annotated[bool, JsonFlag] = False,
) -> None:
    """Make a new key. Whoever has it can read everything; without it nobody can read anything."""
    from qss.app.keyring import new_key

    locks = _locks(_new(passphrase, new_passphrase_file, new_passphrase_fd), recipients, raw=False, label=label)
    fs_id = new_key(out.absolute(), locks or _locks(None, None, raw=True, label=label))
    if as_json:
        print_json({"key": str(out.absolute()), "fs_id": fs_id})
    else:
        say(f"New key in {out}. Keep a copy where no fire reaches both: without it nothing can be read again.")


@keys.command("list")
def key_list(context: typer.Context, key: KeyFile = None, as_json: Annotated[bool, JsonFlag] = False) -> None:
    """The slots of a key file: any one of them opens the key. Shows nothing secret and asks for nothing."""
    from qss.app.keyring import slots_in

    document = slots_in(_path(context, key))
    if as_json:
        print_json(document)
        return
    say(f"{document['key_file']}: the key of file system {document['fs_id'][:8]}")
    for row in document["slots"]:
        say(_described(row))


@keys.command("add")
def key_add(  # noqa: PLR0913, PLR0917 - one for each option
    context: typer.Context,
    key: KeyFile = None,
    passphrase: Passphrase = False,
    new_passphrase_file: NewFile = None,
    new_passphrase_fd: NewFd = None,
    recipient_file: Annotated[Path | None, typer.Option("--recipient", metavar="FILE", help="Public key")] = None,
    raw: Raw = False,
    label: Label = "",
    as_json: Annotated[bool, JsonFlag] = False,
) -> None:
    """One more way to open the key: a passphrase, a recipient, or bare. The others stay."""
    from qss.app.keyring import add_slot

    path, unlock = _path(context, key), _unlock(context)
    passphrase = passphrase or new_passphrase_file is not None or new_passphrase_fd is not None
    if passphrase + (recipient_file is not None) + raw != 1:
        raise typer.BadParameter("name one of --passphrase, --recipient FILE and --raw")
    _no_words(unlock)
    locks = _locks(
        _new(passphrase, new_passphrase_file, new_passphrase_fd), [recipient_file] if recipient_file else None,
        raw=raw, label=label,
    )  # fmt: skip
    row = add_slot(path, unlock, locks[0])
    print_json(row) if as_json else say(f"Added to {path}: {_described(row).strip()}")
    if not as_json:
        _warn_of_raw(path)


@keys.command("remove")
def key_remove(
    context: typer.Context,
    slot: Annotated[str, typer.Argument(metavar="SLOT", help="Its number or label; qssctl key list shows them")],
    key: KeyFile = None,
    as_json: Annotated[bool, JsonFlag] = False,
) -> None:
    """Take a slot out of the file. Another one has to be shown to open first; the last one stays."""
    from qss.app.keyring import remove_slot

    path = _path(context, key)
    _no_words(_unlock(context))
    row = remove_slot(path, _unlock(context), slot)
    if as_json:
        print_json(row)
        return
    say(f"Removed from {path}: {_described(row).strip()}")
    warn("Older copies of the file still open with it: destroy them. Whoever had the key itself still has it.")


@keys.command("rotate")
def key_rotate(
    context: typer.Context,
    key: KeyFile = None,
    passphrase: Passphrase = False,
    new_passphrase_file: NewFile = None,
    new_passphrase_fd: NewFd = None,
    recipients: Recipients = None,
    raw: Raw = False,
    as_json: Annotated[bool, JsonFlag] = False,
) -> None:
    """Close the same key anew, with new secrets: as it is closed now, or exactly as said. No data is rewritten."""
    from qss.app.keyring import rotate, slots_in
    from qss.app.unlock import ask_new, is_asking_possible
    from qss.errors import Refused

    path, unlock = _path(context, key), _unlock(context)
    _no_words(unlock)
    new = _new(passphrase, new_passphrase_file, new_passphrase_fd)
    if passphrase or recipients or raw:
        rows = rotate(path, unlock, _locks(new, recipients, raw=raw, label=""))
    elif new is None:
        rows = rotate(path, unlock, [], ask_new if is_asking_possible() else None)
    else:
        if [row["kind"] for row in slots_in(path)["slots"]].count("passphrase") != 1:
            raise Refused(
                "there is not just one passphrase to renew: name all the slots there are to be, as --passphrase"
            )
        rows = rotate(path, unlock, [], lambda _what: new)
    if as_json:
        print_json({"key_file": str(path), "slots": rows})
        return
    say(f"{path} is closed anew:")
    for row in rows:
        say(_described(row))
    say(
        "Older copies of the file still open as before: destroy them. The key itself is the same, so whoever had it, or"
    )
    say("the 24 words, can still read and write everything: only a new file system helps (docs/security.md).")


@keys.command("verify")
def key_verify(
    context: typer.Context,
    key: KeyFile = None,
    by: Annotated[str | None, typer.Option(metavar="KIND", help="Only by a slot of this kind")] = None,
    remote: Annotated[bool, typer.Option("--remote", help="Also the newest root at the locations.")] = False,
    as_json: Annotated[bool, JsonFlag] = False,
) -> None:
    """Does this key file, passphrase or phrase (qssctl --words key verify) open the file system?"""
    from dataclasses import replace

    from qss.app.keyring import verify
    from qss.cli.render import utc

    if by not in (None, "raw", "passphrase", "recipient"):
        raise typer.BadParameter("--by is raw, passphrase or recipient")
    settings = session_of(context).settings()
    if key is not None:
        settings = replace(settings, unlock=replace(settings.unlock, key_file=key.absolute()))
    found = verify(settings, by, remote=remote)
    if as_json:
        print_json(found)
        return
    opened = f"Opened by {found['opened_by']}: the key of file system {found['fs_id'][:8]}"
    say(opened + (f", which is the one in {found['here']}." if found["here"] else "."))
    if found["remote"]:
        root = found["remote"]
        say(f"It opens the newest root at the locations: {root['generation']}, of {utc(root['cut_ns'])} UTC.")


@keys.command("export")
def key_export(  # noqa: PLR0913, PLR0917 - one for each option
    context: typer.Context,
    key: KeyFile = None,
    words: Annotated[bool, typer.Option("--words", help="Print the 24 words: they are the key.")] = False,
    out: Annotated[Path | None, typer.Option("--out", metavar="FILE", help="A new key file")] = None,
    raw: Raw = False,
    passphrase: Passphrase = False,
    new_passphrase_file: NewFile = None,
    new_passphrase_fd: NewFd = None,
    recipients: Recipients = None,
    yes: Yes = False,
    as_json: Annotated[bool, JsonFlag] = False,
) -> None:
    """The key as 24 words, or in a file of its own: bare, under another passphrase, or for somebody else."""
    from dataclasses import replace

    from qss.app.keyring import export, words_of

    settings = session_of(context).settings()
    if key is not None:
        settings = replace(settings, unlock=replace(settings.unlock, key_file=key.absolute()))
    if words:
        if out is not None:
            raise typer.BadParameter("--words are printed, --out is for a key file: choose one")
        _confirm("The 24 words are the key, and will be shown here. Is nobody looking?", yes)
        fs_id, phrase = words_of(settings)
        print_json({"fs_id": fs_id, "words": phrase}) if as_json else say(phrase)
        return
    passphrase = passphrase or new_passphrase_file is not None or new_passphrase_fd is not None
    if out is None or not (raw or passphrase or recipients):
        raise typer.BadParameter("say --words, or --out FILE with --raw, --passphrase or --recipient FILE")
    if raw:
        _confirm(f"Whoever gets {out} can read everything. Write it?", yes)
    locks = _locks(_new(passphrase, new_passphrase_file, new_passphrase_fd), recipients, raw=raw, label="")
    fs_id = export(settings, out.absolute(), locks)
    print_json({"key": str(out.absolute()), "fs_id": fs_id}) if as_json else say(f"The key is in {out} too.")


@keys.command("sheet")
def key_sheet(
    context: typer.Context,
    with_words: Annotated[bool, typer.Option("--with-words", help="With the 24 words, which are the key.")] = False,
    yes: Yes = False,
) -> None:
    """The recovery sheet, to be printed: what brings the file system back when the machine is gone."""
    from qss.app.keyring import sheet_of

    if with_words:
        _confirm("The sheet will show the 24 words, which are the key. Is nobody looking?", yes)
    say(sheet_of(session_of(context).settings(), with_words=with_words))


@recipient.command("new")
def recipient_new(
    file: Annotated[Path, typer.Argument(metavar="FILE")], as_json: Annotated[bool, JsonFlag] = False
) -> None:
    """Make an identity in FILE, to be kept, and its public key in FILE.pub, to be given away."""
    from qss.app.keyring import new_recipient

    public, fingerprint = new_recipient(file.absolute())
    if as_json:
        print_json({"identity": str(file.absolute()), "public": str(public), "fingerprint": fingerprint})
        return
    say(f"Keep {file}: whoever has it opens what is wrapped for it. Give away {public.name}.")
    say(f"Fingerprint, to be compared by voice: {fingerprint}")


@recipient.command("show")
def recipient_show(
    file: Annotated[Path, typer.Argument(metavar="FILE")], as_json: Annotated[bool, JsonFlag] = False
) -> None:
    """The fingerprint of a public key, or of an identity."""
    from qss.app.keyring import fingerprint_in

    fingerprint = fingerprint_in(file)
    print_json({"fingerprint": fingerprint}) if as_json else say(fingerprint)


def _path(context: typer.Context, key: Path | None) -> Path:
    return key.absolute() if key is not None else session_of(context).settings().key_file


def _unlock(context: typer.Context) -> Any:
    from qss.config import UnlockOptions

    return session_of(context).unlock or UnlockOptions()


def _no_words(unlock: Any) -> None:
    from qss.app.unlock import by_words
    from qss.errors import Refused

    if by_words(unlock):
        raise Refused("with the words make a new key file (qssctl --words key export --out FILE …), then use that one")


def _new(wanted: bool, file: Path | None, handle: int | None) -> str | None:
    """The new passphrase; None: none is wanted. Typed twice where it is not in a file."""
    from qss.app.unlock import ask_new, read_passphrase_fd
    from qss.offload.keyfiles import read_passphrase_file

    if file is not None:
        new = read_passphrase_file(file)
    elif handle is not None:
        new = read_passphrase_fd(handle)
    elif wanted:
        new = ask_new("the new passphrase")
    else:
        return None
    if len(new) < SHORT:
        warn(f"A passphrase of fewer than {SHORT} characters can be guessed by whoever gets hold of the key file.")
    return new


def _locks(passphrase: str | None, recipients: list[Path] | None, *, raw: bool, label: str) -> list[Lock]:
    """In this order: bare, passphrase, recipients. The label is that of the first."""
    from dataclasses import replace

    from qss.app.keyring import Lock, fingerprint_in
    from qss.offload.keyfiles import read_recipient_file

    locks = [Lock()] if raw else []
    locks += [Lock(passphrase=passphrase)] if passphrase is not None else []
    for path in recipients or ():
        locks.append(Lock(public=read_recipient_file(path)))
        warn(f"Recipient {path.name}: {fingerprint_in(path)} (compare it with its owner)")
    return [replace(locks[0], label=label), *locks[1:]] if locks else []


def _warn_of_raw(path: Path) -> None:
    from qss.app.keyring import slots_in

    kinds = [row["kind"] for row in slots_in(path)["slots"]]
    if "raw" in kinds and "passphrase" in kinds:
        number = kinds.index("raw") + 1
        warn(f"The key lies bare in slot {number} too: the passphrase protects nothing until `key remove {number}`.")


def _confirm(question: str, yes: bool) -> None:
    from qss.errors import Refused

    if yes:
        return
    if not sys.stdin.isatty():
        raise Refused("this shows or writes the key: say so with --yes")
    if not typer.confirm(question, err=True):
        raise typer.Abort


def _described(row: dict[str, Any]) -> str:
    from qss.cli.render import utc
    from qss.config.units import human_size

    facts = [row["kind"]]
    if row["kind"] == "passphrase":
        memory = human_size(row["argon2id_memory_bytes"])
        facts.append(f"Argon2id with {memory} and {row['argon2id_passes']} passes")
    if row["kind"] == "recipient":
        facts.append(row["recipient"])
    if row["label"]:
        facts.append(f'"{row["label"]}"')
    if row["created_s"]:
        facts.append(f"made {utc(row['created_s'] * 10**9)} UTC")
    return f"  {row['slot']}: {', '.join(facts)}"
