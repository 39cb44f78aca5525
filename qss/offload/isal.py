"""Intel ISA-L through ctypes: a matrix times blocks, tens of times faster than zfec (docs/adr/0021).

The library comes inside the pyeclib wheel (the extra `qss[fast]`) or from the system (`libisal.so.2`). ctypes drops the
interpreter lock during the call. Nothing is checked here: erasure.py has checked counts, lengths and overlaps before.
"""

from __future__ import annotations

import ctypes
import importlib.util
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Final

TABLE_BYTES: Final = 32
"""Room that ec_init_tables wants for each coefficient."""


def find_library() -> ctypes.CDLL | None:
    """ISA-L, if this machine has it."""
    candidates: list[str] = []
    spec = importlib.util.find_spec("pyeclib")
    if spec is not None and spec.origin is not None:
        packages = Path(spec.origin).parent.parent
        candidates += map(str, sorted(packages.glob("pyeclib.libs/libisal*.so*")))
    candidates.append("libisal.so.2")
    for candidate in candidates:
        try:
            library = ctypes.CDLL(candidate)
            library.ec_init_tables.restype = None
            library.ec_init_tables.argtypes = [ctypes.c_int, ctypes.c_int, ctypes.c_char_p, ctypes.c_char_p]
            library.ec_encode_data.restype = None
            library.ec_encode_data.argtypes = [
                ctypes.c_int, ctypes.c_int, ctypes.c_int, ctypes.c_char_p, ctypes.c_void_p, ctypes.c_void_p
            ]  # fmt: skip
        except (OSError, AttributeError):
            continue
        return library
    return None


def tables(library: ctypes.CDLL, rows: Sequence[bytes]) -> ctypes.Array[ctypes.c_char]:
    """ISA-L's expanded form of a matrix."""
    columns = len(rows[0])
    room = ctypes.create_string_buffer(TABLE_BYTES * columns * len(rows))
    library.ec_init_tables(columns, len(rows), b"".join(rows), room)
    return room


def multiply(
    library: ctypes.CDLL,
    matrix: ctypes.Array[ctypes.c_char],
    sources: Sequence[bytes | bytearray | memoryview],
    targets: Sequence[memoryview],
) -> None:
    """targets = matrix x sources. Blocks all have one length; targets are writable and overlap nothing."""
    with ExitStack() as held:
        source_at = [held.enter_context(pinned(block)) for block in sources]
        target_at = [held.enter_context(pinned(block, writable=True)) for block in targets]
        library.ec_encode_data(
            len(targets[0]),
            len(sources),
            len(targets),
            matrix,
            (ctypes.c_void_p * len(sources))(*source_at),
            (ctypes.c_void_p * len(targets))(*target_at),
        )


class _PyBuffer(ctypes.Structure):
    """CPython's Py_buffer (docs.python.org/3/c-api/buffer.html); ctypes has no other way to a read-only view."""

    _fields_ = (
        ("buf", ctypes.c_void_p),
        ("obj", ctypes.c_void_p),
        ("len", ctypes.c_ssize_t),
        ("itemsize", ctypes.c_ssize_t),
        ("readonly", ctypes.c_int),
        ("ndim", ctypes.c_int),
        ("format", ctypes.c_char_p),
        ("shape", ctypes.c_void_p),
        ("strides", ctypes.c_void_p),
        ("suboffsets", ctypes.c_void_p),
        ("internal", ctypes.c_void_p),
    )


_PYBUF_SIMPLE: Final = 0
_PYBUF_WRITABLE: Final = 1
_get_buffer = ctypes.pythonapi.PyObject_GetBuffer
_get_buffer.argtypes = [ctypes.py_object, ctypes.POINTER(_PyBuffer), ctypes.c_int]
_get_buffer.restype = ctypes.c_int
_release_buffer = ctypes.pythonapi.PyBuffer_Release
_release_buffer.argtypes = [ctypes.POINTER(_PyBuffer)]
_release_buffer.restype = None


@contextmanager
def pinned(block: bytes | bytearray | memoryview, *, writable: bool = False) -> Iterator[int]:
    """The address of a contiguous buffer, which cannot move or go away meanwhile. Raises BufferError."""
    view = _PyBuffer()
    _get_buffer(block, ctypes.byref(view), _PYBUF_WRITABLE if writable else _PYBUF_SIMPLE)
    try:
        yield view.buf or 0
    finally:
        _release_buffer(ctypes.byref(view))
