"""A POSIX file system as plain Python objects: qss.fs must be indistinguishable from it. Slow, obvious on purpose."""

from __future__ import annotations

import errno
import struct
from dataclasses import dataclass, field

ACCESS, DEFAULT = b"system.posix_acl_access", b"system.posix_acl_default"
KINDS = {0o100000: "file", 0o040000: "dir", 0o120000: "link", 0o010000: "fifo", 0o020000: "char", 0o140000: "sock"}

Acl = dict[int, int]
"""Tag (1 user, 2 the user 5, 4 group, 16 mask, 32 others) → permissions."""


def packed(acl: Acl) -> bytes:
    ids = {2: 5}
    return struct.pack("<I", 2) + b"".join(
        struct.pack("<HHI", tag, perm, ids.get(tag, 0xFFFFFFFF)) for tag, perm in sorted(acl.items())
    )


def shown(acl: Acl, mode: int) -> int:
    return mode & 0o7000 | acl[1] << 6 | acl.get(16, acl[4]) << 3 | acl[32]


def narrowed(acl: Acl, mode: int) -> Acl:
    """What a mode leaves of a list."""
    class_tag = 16 if 16 in acl else 4
    allowed = {1: mode >> 6 & 7, class_tag: mode >> 3 & 7, 32: mode & 7}
    return {tag: perm & allowed.get(tag, 7) for tag, perm in acl.items()}


class PosixError(Exception):
    def __init__(self, number: int) -> None:
        super().__init__(errno.errorcode[number])
        self.errno = number


@dataclass(eq=False)
class Node:
    kind: str
    mode: int
    uid: int = 0
    gid: int = 0
    rdev: int = 0
    mtime: int = 0  # the last that was set
    moved: bool = True  # since then
    written: set[int] = field(default_factory=set)  # offsets of bytes that are no hole
    acl: Acl | None = None
    default: Acl | None = None
    opens: int = 0
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

    def __init__(self, inodes_max: int | None = None, bytes_max: int | None = None) -> None:
        self.root = Node("dir", 0o755)
        self.root.parent = self.root
        self.inodes_max, self.bytes_max = inodes_max, bytes_max
        self.open_nodes: list[Node] = []

    def nodes(self) -> list[Node]:
        """Each that is there: named, or unlinked and open."""
        found: dict[int, Node] = {}

        def look(node: Node) -> None:
            found[id(node)] = node
            for child in node.children.values():
                look(child)

        look(self.root)
        found.update((id(node), node) for node in self.open_nodes)
        return list(found.values())

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
        if self.inodes_max is not None and len(self.nodes()) >= self.inodes_max:
            raise PosixError(errno.EDQUOT)
        if parent.mode & 0o2000:  # set-group-id directories pass it on
            node.gid = parent.gid
            if node.kind == "dir":
                node.mode |= 0o2000
        parent.children[path[-1]] = node
        parent.moved = True
        node.names += 1
        node.parent = parent

    def make(self, path, node: Node, umask: int) -> None:
        default = self.directory(path[:-1]).default
        self.add(path, node)
        if default is None:
            node.mode &= ~umask
            return
        list_ = narrowed(default, node.mode)
        node.mode = shown(list_, node.mode)
        node.acl = list_ if len(list_) > 3 else None
        node.default = default if node.kind == "dir" else None

    def mkdir(self, path, mode: int, umask: int) -> None:
        self.make(path, Node("dir", mode), umask)

    def mknod(self, path, kind: str, mode: int, umask: int) -> None:
        self.make(path, Node(kind, mode, rdev=259 if kind == "char" else 0), umask)

    def symlink(self, path, target: bytes) -> None:
        self.add(path, Node("link", 0o777, target=target))

    # -- attributes

    def chmod(self, node: Node, mode: int) -> None:
        node.mode = mode
        if node.acl is not None:
            class_tag = 16 if 16 in node.acl else 4
            node.acl = node.acl | {1: mode >> 6 & 7, class_tag: mode >> 3 & 7, 32: mode & 7}

    def chown(self, node: Node, uid: int | None, gid: int | None) -> None:
        node.uid = node.uid if uid is None else uid
        node.gid = node.gid if gid is None else gid
        self.without_privileges(node)

    def without_privileges(self, node: Node) -> None:
        if node.kind != "dir":
            node.mode &= ~0o4000
            if node.mode & 0o010:
                node.mode &= ~0o2000

    def set_list(self, node: Node, name: bytes, acl: Acl) -> None:
        if name == DEFAULT:
            if node.kind != "dir":
                raise PosixError(errno.EACCES)
            node.default = acl
        else:
            node.mode = shown(acl, node.mode)
            node.acl = acl if len(acl) > 3 else None

    def remove_list(self, node: Node, name: bytes) -> None:
        if name == DEFAULT:
            node.default = None
        else:
            node.acl = None

    def setxattr(self, node: Node, name: bytes, value: bytes, flags: int) -> None:
        if flags == 1 and name in node.xattrs:
            raise PosixError(errno.EEXIST)
        if flags == 2 and name not in node.xattrs:
            raise PosixError(errno.ENODATA)
        node.xattrs[name] = value

    def stored(self, node: Node) -> dict[bytes, bytes]:
        lists = {ACCESS: node.acl, DEFAULT: node.default}
        return node.xattrs | {name: packed(acl) for name, acl in lists.items() if acl is not None}

    def link(self, source, path) -> None:
        node = self.walk(source)
        parent = self.directory(path[:-1])
        if node.kind == "dir":
            raise PosixError(errno.EPERM)
        if path[-1] in parent.children:
            raise PosixError(errno.EEXIST)
        parent.children[path[-1]] = node
        parent.moved = True
        node.names += 1

    def unlink(self, path) -> None:
        parent = self.directory(path[:-1])
        node = self.walk(path)
        if node.kind == "dir":
            raise PosixError(errno.EISDIR)
        del parent.children[path[-1]]
        parent.moved = True
        node.names -= 1

    def rmdir(self, path) -> None:
        parent = self.directory(path[:-1])
        node = self.walk(path)
        if node.kind != "dir":
            raise PosixError(errno.ENOTDIR)
        if node.children:
            raise PosixError(errno.ENOTEMPTY)
        del parent.children[path[-1]]
        parent.moved = True

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
            old.moved = new.moved = True
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
        old.moved = new.moved = True
        node.parent = new

    def inside(self, node: Node, ancestor: Node) -> bool:
        while node is not ancestor:
            if node is self.root:
                return False
            node = node.parent
        return True

    # -- contents and attributes

    def write(self, node: Node, offset: int, data: bytes, *, unprivileged: bool = False) -> None:
        if unprivileged:
            self.without_privileges(node)
        if data:
            fresh = set(range(offset, offset + len(data))) - node.written
            used = sum(len(each.written) for each in self.nodes())
            if self.bytes_max is not None and fresh and used + len(fresh) > self.bytes_max:
                raise PosixError(errno.EDQUOT)
            node.written |= fresh
            node.moved = True
            node.content.extend(bytes(max(0, offset - len(node.content))))
            node.content[offset : offset + len(data)] = data

    def truncate(self, node: Node, size: int) -> None:
        if node.kind != "file":
            raise PosixError(errno.EISDIR if node.kind == "dir" else errno.EINVAL)
        node.moved = True
        node.written = {at for at in node.written if at < size}
        del node.content[size:]
        node.content.extend(bytes(size - len(node.content)))

    # -- everything that can be seen

    def picture(self) -> dict[bytes, tuple]:
        found = {}
        groups: dict[int, list[bytes]] = {}

        def look(path: bytes, node: Node) -> None:
            groups.setdefault(id(node), []).append(path)
            details = {"file": bytes(node.content), "dir": tuple(sorted(node.children)), "link": node.target}
            owner = (node.uid, node.gid, node.rdev)
            blocks = -(-len(node.written) // 512)
            attributes = (node.kind, node.mode, owner, node.nlink, blocks, None if node.moved else node.mtime)
            found[path] = (*attributes, details.get(node.kind), tuple(sorted(self.stored(node).items())))
            for name, child in node.children.items():
                look(path + b"/" + name, child)

        look(b"", self.root)
        found[b"//same"] = tuple(sorted(tuple(sorted(paths)) for paths in groups.values() if len(paths) > 1))
        return found
