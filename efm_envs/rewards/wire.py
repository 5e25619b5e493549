"""How observations and answers travel: JSON for what is said about them, raw bytes for the arrays. Nothing in it can run.

A message is, one after another:

    b"EFM1"                                   what it is, and the format's version
    length of the header                      4 bytes, unsigned, little-endian
    the header                                JSON in UTF-8: {"arrays": [{"name": …, "dtype": …, "shape": […]}, …], …}
    the arrays                                in the order of the header: little-endian, rows first (C order), without gaps
"""

import json
import math
import struct
from collections.abc import Mapping
from typing import Any

import numpy as np

from efm_envs.task import Array

MAGIC = b"EFM1"
DTYPES = ("|b1", "|i1", "|u1", "<i2", "<u2", "<i4", "<u4", "<i8", "<u8", "<f2", "<f4", "<f8")
MAX_HEADER_BYTES = 2**20
MAX_DIMENSIONS = 8
MAX_LENGTH = 2**63  # of a dimension; Python refuses to print much longer numbers, in an error about them for example
_LENGTH = struct.Struct("<I")


class WireError(ValueError):
    """A message that is none."""


def pack(arrays: Mapping[str, Array], **facts: Any) -> bytes:
    """Returns a message of arrays by name, and JSON-able facts.

    >>> sorted(unpack(pack({"x": np.zeros((2, 3))}, instruction="go"))[0].items())
    [('instruction', 'go')]
    """
    listed, parts = [], []
    for name, array in arrays.items():
        array = np.ascontiguousarray(array, dtype=array.dtype.newbyteorder("<"))
        if array.dtype.str not in DTYPES:
            raise WireError(f"{name!r} has dtype {array.dtype}; these can be sent: {', '.join(DTYPES)}.")
        listed.append({"name": name, "dtype": array.dtype.str, "shape": array.shape})
        parts.append(array.tobytes())
    header = json.dumps({**facts, "arrays": listed}).encode()
    return b"".join([MAGIC, _LENGTH.pack(len(header)), header, *parts])


def unpack(message: bytes) -> tuple[dict[str, Any], dict[str, Array]]:
    """Returns the facts and the arrays of a message, which share nothing with it.

    Raises:
        WireError: it is no message; says why. No more memory is taken than the message has.
    """
    facts, begin = _header(message)
    arrays: dict[str, Array] = {}
    for entry in _entries(facts):
        name, dtype, shape = _described(entry)
        if name in arrays:
            raise WireError(f"the array {name!r} comes twice.")
        end = begin + math.prod(shape) * dtype.itemsize
        if end > len(message):
            raise WireError(f"the array {name!r} of shape {shape} needs {end - begin} bytes; {len(message) - begin} are left.")
        arrays[name] = _array(name, message[begin:end], dtype, shape)
        begin = end
    if begin != len(message):
        raise WireError(f"{len(message) - begin} bytes are left over behind the arrays.")
    return facts, arrays


def _header(message: bytes) -> tuple[dict[str, Any], int]:
    begin = len(MAGIC) + _LENGTH.size
    if len(message) < begin or message[: len(MAGIC)] != MAGIC:
        raise WireError(f"a message begins with {MAGIC!r} and the length of its header; got {message[:begin]!r}.")
    (length,) = _LENGTH.unpack(message[len(MAGIC) : begin])
    if length > min(MAX_HEADER_BYTES, len(message) - begin):
        raise WireError(f"the header says it has {length} bytes; at most {MAX_HEADER_BYTES} are taken, and {len(message) - begin} follow.")
    try:
        facts = json.loads(message[begin : begin + length])
    except (ValueError, RecursionError) as error:
        raise WireError(f"the header is no JSON: {type(error).__name__}.") from error
    if not isinstance(facts, dict):
        raise WireError("the header is no JSON object.")
    return facts, begin + length


def _entries(facts: dict[str, Any]) -> list[Any]:
    entries = facts.pop("arrays", None)
    if not isinstance(entries, list):
        raise WireError('the header lists the arrays under "arrays".')
    return entries


def _described(entry: Any) -> tuple[str, np.dtype[Any], tuple[int, ...]]:
    if not isinstance(entry, dict) or not isinstance(entry.get("name"), str):
        raise WireError("an array has a name, a dtype and a shape.")
    name, dtype, shape = entry["name"], entry.get("dtype"), entry.get("shape")
    if dtype not in DTYPES:
        raise WireError(f"the array {name!r} has dtype {dtype!r}; these are taken: {', '.join(DTYPES)}.")
    if not isinstance(shape, list) or len(shape) > MAX_DIMENSIONS or not all(type(n) is int and 0 <= n < MAX_LENGTH for n in shape):
        raise WireError(f"the array {name!r} has shape {str(shape)[:80]}; a shape is at most {MAX_DIMENSIONS} whole numbers from 0.")
    return name, np.dtype(dtype), tuple(shape)


def _array(name: str, data: bytes, dtype: np.dtype[Any], shape: tuple[int, ...]) -> Array:
    if dtype.kind == "b" and (np.frombuffer(data, np.uint8) > 1).any():
        raise WireError(f"the array {name!r} is of bool, and holds other bytes than 0 and 1.")
    try:
        return np.frombuffer(data, dtype).reshape(shape).copy()  # a model may write to what it is given
    except ValueError as error:  # a shape like (0, 10**30)
        raise WireError(f"the array {name!r} cannot have shape {shape}.") from error
