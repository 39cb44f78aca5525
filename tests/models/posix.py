"""A POSIX file system as plain Python objects: qss.fs must be indistinguishable from it. Slow, obvious on purpose."""

from __future__ import annotations

import errno
from dataclasses import dataclass, field


class PosixError(Exception):
    def __init__(self, number: int) -> None:
        super().__init__(errno.errorcode[number])
        self.errno = number


@dataclass(eq=False)
class Node:
    kind: str  # "file", "dir", "link"
    mode: int
    content: bytearray = field(default_factory=bytearray)
    children: dict[bytes, Node] = field(default_factory=dict)
    target: bytes = b""
    xattrs: dict[bytes, bytes] = field(default_factory=dict)
    names: int = 0  # files and links
    parent: Node | None = None
    alive: bool = True

    @property
    def nlink(self) -> int:
        if self.kind != "dir":
            return self.names
        return 2 + sum(child.kind == "dir" for child in self.children.values())


class Model:
    """Operations by path (a tuple of names). Each does it or raises PosixError."""

    def __init__(self) -> None:
        self.root = Node("dir", 0o755)
        self.root.parent = self.root
        self.handles: dict[int, Node] = {}

    # -- walking

    def walk(self, path: tuple[bytes, ...]) -> Node:
        node = self.root
        for name in path:
            if node.kind != "dir":
                raise PosixError(errno.ENOTDIR)
            if name not in node.children:
                raise PosixError(errno.ENOENT)
            node = node.children[name]
        return node

    def directory(self, path: tuple[bytes, ...]) -> Node:
        node = self.walk(path)
        if node.kind != "dir":
            raise PosixError(errno.ENOTDIR)
        return node

    # -- names

    def add(self, path, node: Node) -> None:
        parent = self.directory(path[:-1])
        if path[-1] in parent.children:
            raise PosixError(errno.EEXIST)
        parent.children[path[-1]] = node
        node.names += 1
        node.parent = parent

    def mkdir(self, path, mode: int) -> None:
        parent = self.directory(path[:-1])
        self.add(path, Node("dir", mode | parent.mode & 0o2000))  # set-group-id directories pass it on

    def mknod(self, path, mode: int) -> None:
        self.add(path, Node("file", mode))

    def symlink(self, path, target: bytes) -> None:
        self.add(path, Node("link", 0o777, target=target))

    def link(self, source, path) -> None:
        node = self.walk(source)
        parent = self.directory(path[:-1])
        if node.kind == "dir":
            raise PosixError(errno.EPERM)
        if path[-1] in parent.children:
            raise PosixError(errno.EEXIST)
        parent.children[path[-1]] = node
        node.names += 1

    def unlink(self, path) -> None:
        parent = self.directory(path[:-1])
        node = self.walk(path)
        if node.kind == "dir":
            raise PosixError(errno.EISDIR)
        del parent.children[path[-1]]
        node.names -= 1

    def rmdir(self, path) -> None:
        parent = self.directory(path[:-1])
        node = self.walk(path)
        if node.kind != "dir":
            raise PosixError(errno.ENOTDIR)
        if node.children:
            raise PosixError(errno.ENOTEMPTY)
        del parent.children[path[-1]]

    def rename(self, source, target, flags: int) -> None:
        noreplace, exchange = flags & 1, flags & 2
        old, new = self.directory(source[:-1]), self.directory(target[:-1])
        node = self.walk(source)
        there = new.children.get(target[-1])
        if exchange and there is None:
            raise PosixError(errno.ENOENT)
        if noreplace and there is not None:
            raise PosixError(errno.EEXIST)
        if there is node:
            return
        if node.kind == "dir" and self.inside(new, node):
            raise PosixError(errno.EINVAL)
        if exchange:
            if there.kind == "dir" and self.inside(old, there):
                raise PosixError(errno.EINVAL)
            old.children[source[-1]], new.children[target[-1]] = there, node
            node.parent, there.parent = new, old
            return
        if there is not None:
            if there.kind == "dir" and node.kind != "dir":
                raise PosixError(errno.EISDIR)
            if there.kind != "dir" and node.kind == "dir":
                raise PosixError(errno.ENOTDIR)
            if there.children:
                raise PosixError(errno.ENOTEMPTY)
            there.names -= 1
        del old.children[source[-1]]
        new.children[target[-1]] = node
        node.parent = new

    def inside(self, node: Node, ancestor: Node) -> bool:
        while node is not ancestor:
            if node is self.root:
                return False
            node = node.parent
        return True

    # -- contents and attributes

    def write(self, node: Node, offset: int, data: bytes) -> None:
        if data:
            node.content.extend(bytes(max(0, offset - len(node.content))))
            node.content[offset : offset + len(data)] = data

    def truncate(self, node: Node, size: int) -> None:
        if node.kind != "file":
            raise PosixError(errno.EISDIR if node.kind == "dir" else errno.EINVAL)
        del node.content[size:]
        node.content.extend(bytes(size - len(node.content)))

    # -- everything that can be seen

    def picture(self) -> dict[bytes, tuple]:
        found = {}
        groups: dict[int, list[bytes]] = {}

        def look(path: bytes, node: Node) -> None:
            groups.setdefault(id(node), []).append(path)
            detail = {"file": bytes(node.content), "dir": tuple(sorted(node.children)), "link": node.target}[node.kind]
            found[path] = (node.kind, node.mode, node.nlink, detail, tuple(sorted(node.xattrs.items())))
            for name, child in node.children.items():
                look(path + b"/" + name, child)

        look(b"", self.root)
        found[b"//same"] = tuple(sorted(tuple(sorted(paths)) for paths in groups.values() if len(paths) > 1))
        return found
