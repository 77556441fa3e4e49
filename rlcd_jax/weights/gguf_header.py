"""The head of a GGUF file, walked before anything is made from it.

The gguf package believes what a file says of itself: a length of 2^60 makes it loop or
fail somewhere inside NumPy. This walk follows the same bytes with every count held
against the size of the file and against what a model can have, and reads no weight.
"""

from __future__ import annotations

import math
import mmap
import pathlib
import struct
from typing import Any

import gguf

from rlcd_jax import fetched

MAGIC = b"GGUF"
VERSIONS = (2, 3)
MOST_FIELDS = 2**14
MOST_TENSORS = 2**16
MOST_ITEMS = 2**22  # of all arrays together: LLaMA 3's vocabulary has 0.6 million
MOST_NAME = 2**10  # bytes; ggml itself keeps 64
MOST_DIMENSIONS = 4

_KINDS = gguf.GGUFValueType
_SCALARS = {
    _KINDS.UINT8: "B",
    _KINDS.INT8: "b",
    _KINDS.UINT16: "H",
    _KINDS.INT16: "h",
    _KINDS.UINT32: "I",
    _KINDS.INT32: "i",
    _KINDS.FLOAT32: "f",
    _KINDS.UINT64: "Q",
    _KINDS.INT64: "q",
    _KINDS.FLOAT64: "d",
    _KINDS.BOOL: "?",
}


def check(path: pathlib.Path) -> None:
    """Refuse a file that is no whole GGUF file of a size that a model can have.

    Raises:
      ValueError: it says what is wrong and at which byte.
    """
    with fetched.reading(path), path.open("rb") as file:
        start = file.read(len(fetched.POINTER_START))
        fetched.refuse_pointer(path, start)
        if start[:4] != MAGIC:
            raise ValueError(
                f"{path} is not a whole GGUF file (it starts with {start[:4]!r}, not "
                f"{MAGIC!r}); give a .gguf file, or download it again"
            )
        with mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as data:
            walk = _Walk(data)
            try:
                _walk_file(walk)
            except ValueError as error:
                raise ValueError(
                    f"{path} is not a whole GGUF file ({error}, before byte "
                    f"{walk.at}); download it again"
                ) from error


class _Walk:
    """A place in a file, and how many items of arrays were seen on the way there."""

    def __init__(self, data: mmap.mmap) -> None:
        self.data, self.size, self.at, self.items = data, len(data), 0, 0

    def skip(self, count: int) -> None:
        if count > self.size - self.at:
            raise ValueError(
                f"{fetched.show(count)} bytes are to follow where the file has "
                f"{self.size - self.at}"
            )
        self.at += count

    def scalar(self, form: str) -> Any:
        start = self.at
        self.skip(struct.calcsize(f"<{form}"))
        return struct.unpack_from(f"<{form}", self.data, start)[0]

    def text(self, most: int | None = None) -> str:
        length = self.scalar("Q")
        if most is not None and length > most:
            raise ValueError(f"a name of {length} bytes; accepted: up to {most}")
        start = self.at
        self.skip(length)
        return self.data[start : self.at].decode("utf-8")


def _walk_file(walk: _Walk) -> None:
    walk.skip(len(MAGIC))
    version = walk.scalar("I")
    if version % 2**16 == 0:
        raise ValueError("it is big-endian; convert the model again, little-endian")
    if version not in VERSIONS:
        raise ValueError(f"version {version}; accepted: {VERSIONS[0]}, {VERSIONS[1]}")
    num_tensors, num_fields = walk.scalar("Q"), walk.scalar("Q")
    for count, most, what in (
        (num_tensors, MOST_TENSORS, "tensors"),
        (num_fields, MOST_FIELDS, "fields"),
    ):
        if count > most:
            raise ValueError(f"{count} {what}; accepted: up to {most}")
    metadata = _walk_fields(walk, num_fields)
    ends = _walk_tensors(walk, num_tensors)
    alignment = metadata.get("general.alignment", gguf.GGUF_DEFAULT_ALIGNMENT)
    if not isinstance(alignment, int) or alignment.bit_count() != 1:
        raise ValueError(
            f"general.alignment is {fetched.show(alignment)}; accepted: a power of 2"
        )
    start = math.ceil(walk.at / alignment) * alignment
    for name, (offset, size) in ends.items():
        if offset % alignment or start + offset + size > walk.size:
            raise ValueError(
                f"tensor {name} would lie at bytes {start + offset} to "
                f"{start + offset + size} of {walk.size}, aligned to {alignment}"
            )


def _walk_fields(walk: _Walk, count: int) -> dict[str, Any]:
    """Pass the metadata; return its scalars, and None for arrays and texts."""
    metadata: dict[str, Any] = {}
    for _ in range(count):
        name = walk.text(MOST_NAME)
        if name in metadata:
            raise ValueError(f"the field {name} stands there twice")
        try:
            metadata[name] = _walk_value(walk, walk.scalar("I"))
        except ValueError as error:
            raise ValueError(f"field {name}: {error}") from error
    return metadata


def _walk_value(walk: _Walk, kind: int) -> Any:
    if kind == _KINDS.STRING:
        walk.text()
        return None
    if kind != _KINDS.ARRAY:
        return walk.scalar(_form(kind))
    kind, count = walk.scalar("I"), walk.scalar("Q")
    walk.items += count
    if walk.items > MOST_ITEMS:
        raise ValueError(
            f"{fetched.show(count)} items; accepted: up to {MOST_ITEMS} in all arrays"
        )
    if kind == _KINDS.STRING:
        for _ in range(count):
            walk.text()
    else:
        walk.skip(count * struct.calcsize(f"<{_form(kind)}"))
    return None


def _form(kind: int) -> str:
    if kind not in _SCALARS:
        raise ValueError(f"values of the unknown kind {kind}")
    return _SCALARS[kind]


def _walk_tensors(walk: _Walk, count: int) -> dict[str, tuple[int, int]]:
    """Pass the list of tensors; return offset and size in bytes of each."""
    tensors: dict[str, tuple[int, int]] = {}
    for _ in range(count):
        name = walk.text(MOST_NAME)
        if name in tensors:
            raise ValueError(f"the tensor {name} stands there twice")
        dimensions = walk.scalar("I")
        if not 1 <= dimensions <= MOST_DIMENSIONS:
            raise ValueError(f"tensor {name} has {dimensions} dimensions")
        shape = [walk.scalar("Q") for _ in range(dimensions)]
        kind, offset = walk.scalar("I"), walk.scalar("Q")
        if kind not in gguf.GGML_QUANT_SIZES:
            raise ValueError(f"tensor {name} is of the unknown kind {kind}")
        block, width = gguf.GGML_QUANT_SIZES[kind]
        values = math.prod(shape)
        if not values or shape[0] % block:
            raise ValueError(
                f"tensor {name} of shape {shape[::-1]} is not of whole blocks of "
                f"{block} values"
            )
        tensors[name] = (offset, values // block * width)
    return tensors
