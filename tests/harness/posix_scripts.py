# ruff: noqa: E501 - a script is a line
"""The tables: scripts of system calls by group. Steps as in tests.harness.syscalls."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import product

N255, N256 = "n" * 255, "n" * 256
T4095, T4096 = "t" * 4095, "t" * 4096
DEEP = "/".join(["d" * 200] * 20)  # 4,019 bytes of path
LONG_PATH = "./" * 2047 + "f"  # 4,095 bytes: one more than there is room for with its end
KINDS = {
    "file": "create {0}",
    "dir": "mkdir {0}",
    "full": "mkdir {0}; create {0}/in",
    "fifo": "mknod p {0}",
    "sock": "mknod s {0}",
    "char": "mknod c {0} 600 259",
    "block": "mknod b {0} 600 1800",
    "link": "symlink nowhere {0}",
    "dirlink": "mkdir {0}.d; symlink {0}.d {0}",
}


def made(kind: str, name: str) -> str:
    return KINDS[kind].format(name)


def rename() -> Iterator[str]:
    for one, other, flags in product(KINDS, KINDS, (0, 1, 2)):
        yield f"{made(one, 'a')}; {made(other, 'b')}; rename a b {flags}; readdir ."
    for kind, flags in product(KINDS, (0, 1, 2, 3, 8)):
        yield f"{made(kind, 'a')}; rename a b {flags}; rename none c {flags}; rename a a {flags}; rename b b {flags}"
        yield f"mkdir d; {made(kind, 'a')}; rename a d/b {flags}; readdir d; same d/.. ."
    yield "mkdir a; mkdir a/b; rename a a/b/c; rename a/b a; rename a a/b 2; rename a/b a 2"
    yield "mkdir a; rename a a/.; rename a/. b; rename a/.. b; rename a b/..; rename . b; rename .. b; rename a .."
    yield "mkdir a; mkdir b; mkdir b/c; rename b/c a/c; same a/c/.. a; rmdir b; rename a/c .; stat a"
    yield "create a; link a b; rename a b; rename a b 1; rename a b 2; stat a"
    yield f"create a; rename a {N255}; rename {N255} {N256}; rename {N256} b"
    yield "create a; rename a b/; mkdir d; rename d/ e/; rename e f; rename f/ a"
    yield "create f; create a; rename a f/b; rename f/a b; rename a none/b; rename none/a b"
    yield "create f 600; symlink f l; rename l m; readlink m; stat m; rename m f; readlink f; stat f"
    yield "symlink l l; rename l/a b; rename l m; readlink m"
    for sticky, owner, user in product(("777", "1777"), ("u1", "u2"), ("u1", "u2")):
        yield f"mkdir d; chmod d {sticky}; {owner}:create d/a; {user}:rename d/a d/b; {user}:unlink d/a; readdir d"
        yield (
            f"mkdir d; chmod d {sticky}; mkdir e; chmod e {sticky}; {owner}:create e/t; {user}:create d/a; "
            f"{user}:rename d/a e/t; {user}:rename d/a e/t 2; {user}:rmdir e; readdir e"
        )
    for mode in ("555", "333", "000"):
        yield f"mkdir d; create d/a; create b; chmod d {mode}; u1:rename d/a c; u1:rename b d/b; u1:rename d/a d/c"
        yield f"u1:mkdir d; u1:mkdir d/s; u1:create b; chmod d/s {mode}; u1:rename d/s s; u1:rename b d/s/b; u2:rename d e"
    yield "u1:mkdir d 700; u1:mkdir d/s; chown d/s 1002 1002; chown d 1001 1001; u1:rename d/s e; u1:rename d/s d/t"
    yield "mkdir d 1777; u1:mkdir d/a; chown d/a 1002 1002; u1:rename d/a b; u2:rename d/a b"


def links() -> Iterator[str]:
    for kind in KINDS:
        yield f"{made(kind, 'a')}; link a b; stat b; unlink a; stat b; link b b; link b none/c; link b a/c"
        yield f"{made(kind, 'a')}; linkfollow a b; readdir .; link a c/; link a/ d; link none e; link a .; link a .."
        yield f"{made(kind, 'a')}; unlink a; unlink a; {made(kind, 'a')}; rmdir a; unlink a/; rmdir a/; readdir ."
        yield f"{made(kind, 'a')}; mkdir d; u1:link a d/b; chmod d 777; u1:link a d/b; u1:unlink d/b; u1:rmdir d"
    yield f"create a; link a {N255}; link a {N256}; unlink {N256}; unlink {N255}; link {N256} b"
    yield "mkdir d; rmdir d/.; rmdir d/..; rmdir .; rmdir ..; unlink .; unlink ..; rmdir none; rmdir none/d"
    yield "create f; unlink f/a; rmdir f/a; mkdir f/a; create f/a; link f f/a; symlink x f/a; mknod p f/a; chmod f/a 600"
    yield "mkdir d; create d/f; rmdir d; unlink d/f; rmdir d; rmdir d"
    yield "mkdir d; mkdir d/a; mkdir d/b; stat d; rmdir d/a; stat d; rmdir d/b; stat d; stat ."
    for sticky, owner, user in product(("777", "1777"), ("u1", "u2"), ("u1", "u2")):
        yield f"mkdir d; chmod d {sticky}; {owner}:mkdir d/a; {user}:rmdir d/a; {owner}:symlink x d/b; {user}:unlink d/b"
        yield f"u1:mkdir d; u1:chmod d {sticky}; {owner}:create d/a; create d/r; {user}:unlink d/a; {user}:unlink d/r"
    for mode in ("555", "333", "000"):
        yield f"u1:mkdir d; u1:create d/a; u1:mkdir d/s; chmod d {mode}; u1:unlink d/a; u1:rmdir d/s; u1:readdir d; u1:link d/a b"
    yield "hold h f RDWR|CREAT; unlink f; hstat h; hwrite h abc; hread h; hreopen h RDONLY; hlink h back; hstat h; hclose h"
    yield "hold h f RDWR|CREAT; link f g; unlink f; hlink h back; hstat h; stat back"
    yield "mkdir d; hold h d RDONLY; rmdir d; hstat h; hlist h; hopenat h new WRONLY|CREAT; hopenat h .. RDONLY; hclose h"
    yield "mkdir d; chdir d; mkdir e; getcwd; rmdir ../d; chdir e; same .. ../../d; chdir ..; rmdir e; rmdir ../d; create x; readdir ."
    for target in ("x", "/", ".", "..", "a/b/c", T4095, T4096, N255, N256, f"{N256}/x"):
        yield f"symlink {target} l; readlink l; lchown l 5 6; symlink x l; read l; unlink l"
    yield "symlink l l; read l; stat l; chdir l; open l WRONLY; open l WRONLY|CREAT|EXCL; truncate l 1; mkdir l/x; chmod l 600"
    yield "symlink b a; symlink a b; read a; create a/x; link a c; linkfollow a d; rename a/x e; utimens a 1 2; utimens a 1 2 0"
    forty = "; ".join(f"symlink l{n} l{n + 1}" for n in range(41))
    yield f"create l0; {forty}; read l39; read l40; read l41; stat l40; stat l41"
    yield f"symlink {T4095} l; read l; stat l; mkdir d; symlink ../f d/l; create f; read d/l; read d/l/"
    yield "create f; symlink f l; open l RDONLY|NOFOLLOW; open l RDONLY|NOFOLLOW|DIRECTORY; open f RDONLY|DIRECTORY"
    yield "symlink new l; open l WRONLY|CREAT; stat new; open l WRONLY|CREAT|EXCL; symlink none/x m; open m WRONLY|CREAT"


def making() -> Iterator[str]:
    calls = ("create {0} {1}", "mkdir {0} {1}", "mknod f {0} {1}", "mknod p {0} {1}", "mknod s {0} {1}")
    devices = ("mknod c {0} {1} 259", "mknod b {0} {1} 1800")
    for call, mode in product(calls + devices, ("0", "151", "644", "777", "1777", "2755", "4711", "7777")):
        yield f"{call.format('a', mode)}; u1:{call.format('b', mode)}; umask 0; u1:{call.format('c', mode)}; umask 77; {call.format('d', mode)}"
    for call in calls + devices:
        a = call.format("a", "644")
        yield f"{a}; {a}; {call.format('none/a', '644')}; {call.format('a/b', '644')}; {call.format(N255, '600')}; {call.format(N256, '600')}"
        yield f"mkdir d 755; u1:{call.format('d/a', '644')}; chmod d 2777; chown d 0 1002; u1:{call.format('d/b', '6777')}; g1:{call.format('d/c', '2755')}"
        yield f"mkdir d 2777; chmod d 2777; chown d 0 1001; u2:{call.format('d/a', '2775')}; g1:{call.format('d/b', '2775')}; readdir d"
        yield f"{call.format('..', '644')}; {call.format('.', '644')}; {call.format('x/', '644')}; symlink t l; {call.format('l', '644')}"
    for flags in (
        "RDONLY",
        "WRONLY",
        "RDWR",
        "WRONLY|APPEND",
        "WRONLY|TRUNC",
        "RDONLY|DIRECTORY",
        "RDONLY|NOFOLLOW",
        "PATH",
    ):
        for kind in ("file", "dir", "sock", "char", "link", "dirlink"):
            more = flags + "|NONBLOCK"
            yield f"{made(kind, 'a')}; open a {more}; open a/ {more}; open a {more}|CREAT; open a {more}|CREAT|EXCL; stat a"
        for mode in ("0", "400", "200", "600", "444"):
            yield f"u1:create f {mode}; u1:open f {flags}; u2:open f {flags}; open f {flags}; g1:open f {flags}"
        yield f"mkdir d 555; u1:open d/new {flags}|CREAT 640; chmod d 777; u1:open d/new {flags}|CREAT 640; stat d/new"
        yield f"open new {flags}|CREAT 4755; u1:open new2 {flags}|CREAT 2777; open new3 {flags}|CREAT 1777; readdir ."
    yield "open x TMPFILE|RDWR; open . TMPFILE|RDONLY; mkdir d; open d RDWR|CREAT; open d RDONLY|CREAT|DIRECTORY; open . RDWR"
    yield "u1:create f; u1:open f RDONLY|NOATIME; u2:open f RDONLY|NOATIME; open f RDONLY|NOATIME"
    yield f"create f; read {LONG_PATH}; read ./{LONG_PATH}; stat {LONG_PATH}x; create {DEEP}"
    yield "mkdir d 2755; chmod d 2755; mkdir d/e; create d/f 2755; u1:create d/g; chmod d 2777; u1:create d/g 2775; u1:mkdir d/h; chmod d/h 755; stat d/h"


def owning() -> Iterator[str]:
    modes = ("0", "644", "1777", "2755", "2644", "4755", "6711", "6644", "7777")
    for kind, mode in product(("file", "dir", "fifo", "sock", "char", "block"), modes):
        yield f"{made(kind, 'a')}; chmod a {mode}; chown a 1001 1001; chmod a {mode}; u1:chmod a {mode}; u2:chmod a 777; stat a"
        yield f"{made(kind, 'a')}; chmod a {mode}; chown a -1 -1; chmod a {mode}; chown a 0 -1; chmod a {mode}; chown a -1 0; stat a"
        yield f"{made(kind, 'a')}; chown a 1001 1001; chmod a {mode}; g1:chown a -1 1001; u1:chown a -1 1001; u1:chown a 1001 -1; u1:chown a -1 -1"
        yield f"{made(kind, 'a')}; chown a 1003 1003; chmod a {mode}; g1:chown a 1003 1001; g1:chown a 1001 -1; g1:chown a -1 1002; g1:chown a -1 1003"
    for mode in ("2755", "2777"):
        yield f"u1:create f; chown f 1001 1002; u1:chmod f {mode}; u1:mkdir d; chown d 1001 1002; u1:chmod d {mode}; chmod d {mode}"
        yield f"create f; chown f 1003 1001; g1:chmod f {mode}; chown f 1003 1002; g1:chmod f {mode}; stat f"
    for mode in ("4777", "2777", "6777", "4766", "6755"):
        yield f"create f; chmod f {mode}; u1:write f text; stat f; chmod f {mode}; write f more; stat f; chmod f {mode}; u1:truncate f 1; stat f"
        yield f"create f; chmod f {mode}; u1:open f WRONLY|TRUNC; stat f; chmod f {mode}; truncate f 9; stat f; open f WRONLY|TRUNC; stat f"
        yield f"create f; chmod f {mode}; u1:write f text; stat f; chmod f {mode}; hold h f RDWR; hwrite h more; stat f; u1:htruncate h 2; stat f; hmap h 2 x; stat f"
    yield "symlink none l; chmod l 600; chown l 1 1; lchown l 1 1; symlink f m; create f; chown m 5 5; lchown m 6 6; stat f; u1:lchown m 1001 -1"
    yield "create f; chown f 4294967294 4294967294; chown f 65536 65537; stat f; chmod none 600; chown none 1 1; chmod f/x 1; chown f/x 1 1"
    yield f"chmod {N256} 600; chown {N256} 0 0; utimens {N256} 1 1; truncate {N256} 1; setxattr {N256} user.a b; access {N256} 4"
    yield "mkdir d 700; create d/f 666; u1:chmod d/f 600; u1:stat d/f; u1:access d/f 0; u1:read d/f; u1:truncate d/f 0; u1:readlink d/f; u1:chdir d"
    yield "mkdir d 755; mkdir d/e 0; create d/e/f; chown d 1001 1001; chown d/e 1001 1001; u1:stat d/e/f; u1:readdir d/e; u1:chdir d/e; u1:rmdir d/e"
    yield "mkdir d 711; create d/f; u1:readdir d; u1:read d/f; chmod d 744; u1:readdir d; u1:read d/f"
    for mode, user, asked in product(("0", "111", "444", "640", "700", "666"), ("u1", "u2", "g1"), (0, 1, 2, 4, 7)):
        yield f"create f; chown f 1001 1001; chmod f {mode}; {user}:access f {asked}; access f {asked}; mkdir d; chown d 1001 1001; chmod d {mode}; {user}:access d {asked}"


def moments() -> Iterator[str]:
    far = [
        0,
        1,
        999_999_999,
        -1,
        -1_000_000_000,
        -(2**31) * 10**9,
        (2**31 - 1) * 10**9 + 5,
        2**31 * 10**9,
        (2**32) * 10**9 + 7,
        7_258_118_400_123_456_789,
    ]
    for moment in far:
        yield f"create f; utimens f {moment} {moment}; times f; utimens f {moment} omit; utimens f omit {moment}; times f; stat f"
    for kind in KINDS:
        yield f"{made(kind, 'a')}; utimens a 5 6 0; times a; utimens a 7 8; times a; utimens a omit omit; utimens a now omit; utimens a omit now; utimens a now now; utimenow a"
    for pair in ("1 1", "now now", "now omit", "omit omit", "omit 1"):
        yield f"u1:create f 644; u1:utimens f {pair}; u2:utimens f {pair}; chmod f 666; u2:utimens f {pair}; chmod f 444; u2:utimens f {pair}; u1:utimens f {pair}; u2:utimenow f"
    yield "create f; utimens f 1 2; hold h f RDWR; hutimens h 3 4; times f; hutimens h omit 9; times f; unlink f; hutimens h 5 6; hstat h; utimens none 1 1; utimens f/x 1 1"
    yield "create f; utimens f 1 2; write f abc; truncate f 3; truncate f 2; open f WRONLY|TRUNC; open f WRONLY|TRUNC; open f RDONLY; open f RDWR; read f"
    yield "hold h f RDWR|CREAT; htruncate h 0; htruncate h 5; htruncate h 5; hwrite h x; hpwrite h y 3; hsync h; hdatasync h; hsyncfs h; hchmod h 600; hchown h 1 1; hxattr h user.a b"
    yield "create f; setxattr f user.a b; setxattr f user.a c; removexattr f user.a; removexattr f user.a; chmod f 644; chmod f 644; chown f 0 0; chown f -1 -1; access f 4"
    yield "create a; link a b; rename a c; rename c b; unlink b; mkdir d; create d/x; mkdir d/y; mknod p d/z; symlink a d/l; link d/x d/k; rename d/x x; rename x d/x; unlink d/l; rmdir d/y"
    yield "mkdir a; mkdir b; mkdir a/s; create b/f; rename a/s b/s; rename a/none b/x; rename b/f a/f 2; create a/f; rename b/f a/f 2; rename b/s a/f 2; rename b/s a/s 1; rename a/f b/f"
    yield "create a; create b; rename a b; mkdir c; mkdir d; rename c d; create e; link e g; rename e b"


def contents() -> Iterator[str]:
    sizes = ("0", "1", "4095", "4096", "65537", "10000000", "-1", "9223372036854775807")
    yield "create f; " + "; ".join(f"truncate f {size}; stat f" for size in sizes[:-1])
    for kind in ("dir", "fifo", "sock", "char", "link", "dirlink"):
        yield f"{made(kind, 'a')}; truncate a 0; truncate a 5; truncate a/x 1; truncate none 1; readlink a; readdir a"
    yield "u1:create f 444; u2:truncate f 0; u1:truncate f 0; truncate f 3; u1:create g 222; u2:truncate g 5; u1:truncate g 5; u1:read g"
    yield "create f; write f 0123456789; truncate f 4; truncate f 9; read f; hold h f RDONLY; htruncate h 1; hwrite h x; hold w f WRONLY; hread w; htruncate w 2; read f"
    yield "hold h f RDWR|CREAT|APPEND; hwrite h abc; hpwrite h def 0; hread h; hseek h 0 1; hseek h 0 0; hwrite h g; hread h; htruncate h 2; hwrite h z; hread h"
    yield "hold h f RDWR|CREAT; hpwrite h x 100000; hstat h; hread h 99999 10; hseek h 0 2; hseek h -1 0; hseek h 5 0; hseek h -9 1; hread h 0 3; hread h 200000 5"
    yield "hold h f RDWR|CREAT; hwrite h abcdef; hmap h 6 XY; hread h; hwrite h more; hmap h 10 Z; read f; htruncate h 3; hmap h 3 Q; hread h"
    yield "hold a f RDWR|CREAT; hold b f RDWR; hflock a EX; hflock b EX; hflock b SH; hflock a SH; hflock b SH; hflock a EX; hflock b UN; hflock a EX"
    yield "mknod f a; execute a; chmod a 755; write a exit; execute a; chmod a 444; u1:execute a; symlink /bin/true t; execute t"
    yield "mkdir d; read d; write d x; open d RDWR; open d WRONLY|TRUNC; hold h d RDONLY; hread h; hsync h; hdatasync h; hlist h"
    yield "mknod p p; open p WRONLY|NONBLOCK; hold r p RDONLY|NONBLOCK; hold w p WRONLY|NONBLOCK; stat p; mknod s s; open s RDONLY; read s"
    yield "mknod c n 666 259; write n gone; read n; mknod c z 666 261; hold h z RDONLY; hread h 0 4; u1:write n x; chmod n 600; u1:write n x"


def attributes() -> Iterator[str]:
    for kind in KINDS:
        for space in ("user", "trusted", "security", "system", "nothing"):
            name = f"{space}.a"
            yield f"{made(kind, 'a')}; setxattr a {name} one; getxattr a {name}; u1:setxattr a {name} two; u1:getxattr a {name}; listxattr a; u1:listxattr a; removexattr a {name}; u1:removexattr a {name}"
    for flags in (0, 1, 2):
        yield f"create f; setxattr f user.a x {flags}; setxattr f user.b y 0; setxattr f user.b z {flags}; getxattr f user.b; listxattr f"
    yield "create f; setxattr f user.a -; getxattr f user.a; getxattr f user.a 0; setxattr f user.a *100; getxattr f user.a 0; getxattr f user.a 99; getxattr f user.a 100; listxattr f 0; listxattr f 3; listxattr f 7; listxattr f 6"
    yield "create f; setxattr f user. x; setxattr f user x; setxattr f trusted. x; getxattr f user.; removexattr f user.; getxattr none user.a; setxattr none user.a x; listxattr none; removexattr none user.a"
    yield f"create f; setxattr f user.{'k' * 250} v; setxattr f user.{'k' * 251} v; getxattr f user.{'k' * 250}; getxattr f user.{'k' * 251}; removexattr f user.{'k' * 251}; listxattr f"
    yield "create f; setxattr f user.a *65537; getxattr f user.a; getxattr f/x user.a; setxattr f/x user.a b"
    yield "u1:create f 644; u1:setxattr f user.a x; u2:setxattr f user.a y; u2:getxattr f user.a; chmod f 600; u2:getxattr f user.a; u2:listxattr f; chmod f 222; u2:setxattr f user.a z; u1:getxattr f user.a"
    yield "mkdir d 1777; u1:setxattr d user.a x; chmod d 1777; u1:setxattr d user.a x; chown d 1001 0; u1:setxattr d user.a x; u2:getxattr d user.a"
    yield "create f; setxattr f user.a x; link f g; getxattr g user.a; rename f h; getxattr h user.a; unlink g; unlink h; create f; getxattr f user.a; listxattr f"
    yield "create f; setxattr f security.other x; u1:setxattr f security.other y; u1:getxattr f security.other; listxattr f"


def access_lists() -> Iterator[str]:
    full = "u::rwx,u:1001:r--,g::r-x,m::r-x,o::---"
    default = "u::rwx,u:1002:rwx,g::r-x,m::rwx,o::r--"
    small = "u::rw-,g::r--,o::---"
    for text in (full, default, small, "u::---,g::---,o::---", "u::rwx,g::rwx,m::r--,o::rwx"):
        yield f"create f; setacl f access {text}; stat f; getacl f access; chmod f 640; getacl f access; stat f; chmod f 777; getacl f access; listxattr f; rmacl f access; stat f"
        yield f"mkdir d; setacl d default {text}; getacl d default; getacl d access; create d/f 666; mkdir d/e 777; getacl d/f access; getacl d/e default; getacl d/e access; stat d/f; listxattr d/e; rmacl d default; create d/g; stat d/g"
        for mask in ("0", "22", "77", "777"):
            yield f"mkdir d; setacl d default {text}; umask {mask}; create d/f 666; mkdir d/e 777; mknod p d/p 664; mknod s d/s 777; symlink x d/l; stat d/f; stat d/e; getacl d/f access; open d/n WRONLY|CREAT 600; stat d/n"
            yield f"mkdir d; setacl d default {text}; umask {mask}; create d/f 4755; mkdir d/e 2777; create d/g 0; stat d/f; stat d/e; stat d/g; listxattr d/g; mkdir d/e/x 777; stat d/e/x"
    yield f"create f 600; u1:read f; setacl f access {full}; u1:read f; u1:write f x; u2:read f; chmod f 600; u1:read f; chmod f 660; u1:read f; rmacl f access; u1:read f"
    yield f"u1:create f; u1:setacl f access {full}; u2:setacl f access {small}; u2:getacl f access; u2:rmacl f access; u1:rmacl f access; u1:rmacl f access; u1:setacl f default {small}; getacl none access"
    yield f"mkdir d; symlink d l; setacl d access {full}; getacl l access; u1:readdir d; u1:create d/x; create d/f; u1:stat d/f; setacl d access {small}; u1:readdir d; listxattr d"
    yield "create f; setacl f access u::rwx,u:1001:r--,g::r-x,o::---; setacl f access u::rwx,o::---; setacl f access u::rwx,u::rwx,g::r--,o::---; setxattr f system.posix_acl_access -; getacl f access; setxattr f system.posix_acl_access x"
    yield f"create f; chown f 1001 1002; u1:chmod f 2755; setacl f access {full}; chmod f 2755; u1:setacl f access {full}; stat f; chmod f 4755; u1:setacl f access {small}; stat f"
    yield f"create f; setacl f access {full}; chown f 1001 1001; getacl f access; link f g; getacl g access; rename f h; getacl h access; u1:setxattr h user.a b; g1:read h"
    yield f"mkdir d 2777; chmod d 2777; chown d 0 1001; setacl d default {full}; u2:create d/f 666; u2:mkdir d/e; u1:readdir d/e; u1:read d/f; stat d/e"


FORCED = {
    "hold h f RDWR|CREAT; hwrite h 0123456789; hallocate h 0 0 4096": "fallocate",
    "hold h f RDWR|CREAT; hwrite h 0123456789; hallocate h 3 0 4096": "fallocate",
    "hold h f RDWR|CREAT; hpwrite h x 1000000; hseek h 0 3; hseek h 0 4": "SEEK_HOLE",
    "open . TMPFILE|RDWR": "O_TMPFILE",
    "create a; rename a b 4": "RENAME_WHITEOUT",
    "mknod p p; hold r p RDONLY|NONBLOCK; hold w p WRONLY|NONBLOCK; hwrite w data": "a fifo's times",
    "create f; chmod f 2766; u1:write f text; stat f": "setgid without group execution",
    "create f; chmod f 4777; hold h f RDWR; u1:hwrite h text; stat f": "a file opened by root, written by another",
    "hold h f PATH|CREAT; create f; hold h f PATH; unlink f; hreopen h RDONLY": "O_PATH of a deleted file",
}
"""What differs, and the words docs/semantics.md says why with."""


READ_ONLY = [
    "create file; write file text; setxattr file user.x y; mkdir dir; create dir/in; symlink file link; mknod p fifo; create secret 600",
    "create new; mkdir new; mknod p new; symlink x new; link file new; rename file new; rename file file; unlink file; rmdir dir; unlink none; rmdir none",
    "chmod file 600; chown file 0 0; truncate file 1; utimens file 1 1; utimenow file; setxattr file user.a b; removexattr file user.x; getxattr file user.x; setacl dir default u::rwx,g::---,o::---",
    "open file RDONLY; open file WRONLY; open file RDWR; open file RDONLY|TRUNC; open file RDONLY|CREAT; open new RDONLY|CREAT; open file WRONLY|CREAT|EXCL; open dir RDONLY",
    "access file 0; access file 2; access file 4; access dir 2; u1:access file 4; u1:access secret 4; u1:read secret; u1:chmod file 600; u1:chown file 1 1",
    "read file; readlink link; readdir dir; stat fifo; times file; mkdir dir; create file; link none new; rename none x; symlink x link; mkdir none/x; open . TMPFILE|RDWR",
    "hold h file RDONLY; hsync h; hdatasync h; hsyncfs h; hstat h; hread h; hchmod h 600; hchown h 1 1; htruncate h 1; hxattr h user.a b; hutimens h 1 1; hlink h new",
    "open fifo RDONLY|NONBLOCK; open fifo RDWR|NONBLOCK; hold d dir RDONLY; hsync d; hopenat d new WRONLY|CREAT; hopenat d in RDONLY; hopenat d in WRONLY",
]
"""The first makes a tree; the others are run in it when it is mounted read-only."""


def falling_back() -> Iterator[str]:
    """What pyfuse3 cannot pass on, where the kernel's own way gives the same."""
    for mode in (2, 64, 128):
        yield f"hold h f RDWR|CREAT; hwrite h 0123456789; hallocate h {mode} 0 4096"
    yield "hold h f RDWR|CREAT; hwrite h 0123456789; hposixallocate h 0 5000; hstat h; hread h 0 12"
    yield "hold a f RDWR|CREAT; hwrite a 0123456789; hold b g RDWR|CREAT; copyrange a b 10; hread b; hstat b"
    yield "hold a f RDWR|CREAT; hwrite a 0123456789; hold b g RDWR|CREAT; clone a b; hstat b"
    yield "hold h f RDWR|CREAT; hwrite h 0123456789; hseek h 10 3; hseek h 11 4; hseek h 5 3; hseek h 5 4"


GROUPS = {
    "rename": rename, "links": links, "making": making, "owning": owning, "moments": moments, "contents": contents,
    "attributes": attributes, "access_lists": access_lists, "falling_back": falling_back,
}  # fmt: skip
"""What has to be the same."""
