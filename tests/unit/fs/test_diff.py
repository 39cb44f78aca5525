"""Differences of two states of a file system, against what was done to it."""

from __future__ import annotations

import os
import random
from pathlib import Path

import pytest

from qss.cache.index import Index
from qss.formats.journal import Op
from qss.formats.tables import EntryRow, Table, u64_of_key
from qss.fs.attrs import SetAttributes, User
from qss.fs.diff import Difference, What, compare
from qss.fs.filesystem import FileSystem
from qss.ids import ROOT_INO

TABLES = (Table.INODES, Table.ENTRIES, Table.EXTENTS, Table.XATTRS, Table.SYMLINKS)


class Tree:
    """A file system by paths, and copies of its rows."""

    def __init__(self, world, folder: Path) -> None:
        self.folder = folder
        self.cache = world.cache
        self.fs: FileSystem = world.fs
        self.states: list[Index] = []

    def keep(self) -> Index:
        """The rows as they are now, in an index of their own."""
        path = self.folder / f"state-{len(self.states)}"
        path.mkdir()
        index = Index(path, 1 << 26)
        for table in TABLES:
            index.apply([Op(table, key, None, value) for key, value in self.cache.scan(table, b"")])
        self.states.append(index)
        return index

    def place(self, path: str) -> tuple[int, bytes]:
        *above, name = path.split("/")
        ino = ROOT_INO
        for each in above:
            ino = self.fs.lookup(ino, each.encode())
        return ino, name.encode()

    def ino(self, path: str) -> int:
        return self.fs.lookup(*self.place(path))

    def mkdir(self, path: str) -> None:
        self.fs.mkdir(*self.place(path), 0o755, User())

    async def write(self, path: str, data: bytes, offset: int = 0) -> None:
        parent, name = self.place(path)
        ino = self.fs.find(parent, name)
        if ino is None:
            ino = self.fs.create(parent, name, 0o644, User()).ino
        handle = await self.fs.open(ino, os.O_RDWR)
        await self.fs.write(handle, offset, data)
        self.fs.release(handle)

    async def set(self, path: str, **change) -> None:
        await self.fs.setattr(self.ino(path), SetAttributes(**change))

    def rename(self, old: str, new: str) -> None:
        self.fs.rename(*self.place(old), *self.place(new))

    def unlink(self, path: str) -> None:
        self.fs.unlink(*self.place(path))

    def link(self, old: str, new: str) -> None:
        self.fs.link(self.ino(old), *self.place(new))

    def changes(self) -> set[Difference]:
        found = list(compare(self.states[-1], self.keep()))
        assert len(set(found)) == len(found)
        return set(found)


@pytest.fixture
def tree(world, tmp_path):
    (tmp_path / "states").mkdir()
    tree = Tree(world, tmp_path / "states")
    yield tree
    for index in tree.states:
        index.close()


def renamed(before: str, path: str) -> Difference:
    return Difference(What.RENAMED, path.encode(), before.encode())


def modified(path: str, *, content: bool = False, attributes: bool = False) -> Difference:
    return Difference(What.MODIFIED, path.encode(), content=content, attributes=attributes)


def added(path: str) -> Difference:
    return Difference(What.ADDED, path.encode())


def removed(path: str) -> Difference:
    return Difference(What.REMOVED, path.encode())


async def test_each_kind_of_change(tree: Tree) -> None:
    for folder in ("d", "d/e", "old"):
        tree.mkdir(folder)
    for name in ("same", "grown", "inside", "mode", "xattr", "touched", "moved", "gone", "both", "d/e/deep", "old/x"):
        await tree.write(name, b"0123456789")
    tree.keep()
    await tree.write("grown", b"more", 10)
    await tree.write("inside", b"X", 5)
    await tree.set("mode", mode=0o600)
    tree.fs.setxattr(tree.ino("xattr"), b"user.a", b"b")
    await tree.set("touched", mtime_ns=1)
    tree.rename("moved", "d/moved")
    tree.unlink("gone")
    tree.link("both", "d/second name")
    tree.rename("d/e", "e")
    tree.unlink("old/x")
    tree.fs.rmdir(*tree.place("old"))
    tree.mkdir("new")
    await tree.write("new/y", b"y")
    await tree.set("d", mode=0o700)
    assert tree.changes() == {
        modified("/grown", content=True), modified("/inside", content=True), modified("/mode", attributes=True),
        modified("/xattr", attributes=True), modified("/touched", attributes=True), renamed("/moved", "/d/moved"),
        removed("/gone"), added("/d/second name"), renamed("/d/e", "/e"), removed("/old"), removed("/old/x"),
        added("/new"), added("/new/y"), modified("/d", attributes=True),
    }  # fmt: skip
    assert tree.changes() == set()


async def test_reading_and_changed_directories_are_no_difference(tree: Tree) -> None:
    tree.mkdir("d")
    await tree.write("d/a", b"a")
    tree.keep()
    await tree.write("d/b", b"b")
    tree.unlink("d/b")
    handle = await tree.fs.open(tree.ino("d/a"), os.O_RDONLY)
    assert tree.fs.read_now(handle, 0, 1) == b"a"
    tree.fs.release(handle)
    await tree.set("d/a", atime_ns=5)
    assert tree.changes() == set()


async def test_moved_and_changed_is_both(tree: Tree) -> None:
    await tree.write("a", b"a")
    tree.keep()
    tree.rename("a", "b")
    await tree.write("b", b"bb")
    assert tree.changes() == {renamed("/a", "/b"), modified("/b", content=True)}


async def test_saving_by_renaming_over_is_a_change_of_content(tree: Tree) -> None:
    await tree.write("text", b"one")
    tree.mkdir("d")
    tree.keep()
    await tree.write("text~", b"two")
    tree.rename("text~", "text")
    tree.fs.rmdir(*tree.place("d"))
    await tree.write("d", b"a file now")
    assert tree.changes() == {modified("/text", content=True), removed("/d"), added("/d")}


async def test_two_files_that_changed_places(tree: Tree) -> None:
    await tree.write("a", b"a")
    await tree.write("b", b"b")
    tree.keep()
    for old, new in (("a", "t"), ("b", "a"), ("t", "b")):
        tree.rename(old, new)
    assert tree.changes() == {renamed("/a", "/b"), renamed("/b", "/a")}


async def test_the_root_and_names_that_are_no_text(tree: Tree) -> None:
    tree.keep()
    await tree.fs.setattr(ROOT_INO, SetAttributes(mode=0o700))
    tree.fs.create(ROOT_INO, b"\xff\n", 0o644, User())
    found = tree.changes()
    assert found == {modified("/", attributes=True), Difference(What.ADDED, b"/\xff\n")}
    assert {each.to_json()["path"] for each in found} == {"/", "/\udcff\n"}


PLACES = [f"{folder}/{number}" for folder in "ab" for number in range(6)]


async def change_something(tree: Tree, rng: random.Random, touched: dict[int, set[str]]) -> None:
    path, other = rng.sample(PLACES, 2)
    there, free = tree.fs.find(*tree.place(path)), tree.fs.find(*tree.place(other)) is None
    match rng.choice(["write", "write", "chmod", "rename", "link", "unlink"]):
        case "write":
            await tree.write(path, rng.randbytes(3))
            touched.setdefault(tree.ino(path), set()).add("content")
        case "chmod" if there:
            await tree.set(path, mode=tree.fs.getattr(there).mode & 0o777 ^ 0o111)
            touched.setdefault(there, set()).add("attributes")
        case "rename" if there:
            tree.rename(path, other)
        case "link" if there and free:
            tree.link(path, other)
        case "unlink" if there:
            tree.unlink(path)


@pytest.mark.parametrize("seed", range(8))
async def test_what_is_reported_makes_the_new_state_of_the_old(tree: Tree, seed: int) -> None:
    rng = random.Random(seed)
    tree.mkdir("a")
    tree.mkdir("b")

    def names(index: Index) -> dict[bytes, int]:
        tops = {tree.ino("a"): b"/a/", tree.ino("b"): b"/b/"}
        rows = index.scan(Table.ENTRIES, b"")
        return {
            tops[u64_of_key(key)] + key[8:]: EntryRow.unpack(value).ino
            for key, value in rows
            if u64_of_key(key) in tops
        }

    for _ in range(6):
        before = names(tree.keep())
        touched: dict[int, set[str]] = {}
        for _ in range(rng.randrange(12)):
            await change_something(tree, rng, touched)
        found = tree.changes()
        after = names(tree.states[-1])
        by_kind = {what: [each for each in found if each.what is what] for what in What}
        replaced = {each.path for each in by_kind[What.MODIFIED] if before.get(each.path) not in after.values()}
        made = dict(before)
        for each in by_kind[What.REMOVED]:
            del made[each.path]
        moving = [(made.pop(each.before), each.path) for each in by_kind[What.RENAMED]]
        made.update({path: ino for ino, path in moving})
        for each in by_kind[What.ADDED]:
            assert each.path not in made
            made[each.path] = after[each.path]
        for path in replaced & made.keys():
            made[path] = after[path]
        assert made == after
        for path, ino in after.items():
            reported = [each for each in by_kind[What.MODIFIED] if each.path == path]
            if ino in before.values():
                assert any(each.content for each in reported) == ("content" in touched.get(ino, set()))
            else:
                assert not reported or path in replaced
