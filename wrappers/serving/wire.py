"""openpi's wire format: msgpack, in which an array is a small dictionary.

    {b"__ndarray__": True, b"data": bytes, b"dtype": "<f4", b"shape": (8, 7)}
    {b"__npgeneric__": True, b"data": number, b"dtype": "<f4"}

as published in ``openpi_client.msgpack_numpy`` (https://github.com/Physical-Intelligence/openpi). Keys may be
text as well as bytes. Nothing is unpickled, and what comes in is bounded: arrays hold numbers and text only,
their sizes must agree with their bytes, and the number of containers is limited, so that a frame takes little
more memory than its own size.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import numpy as np

from ...interfaces import ForethoughtError

NUMBERS_AND_TEXT = "biufSU"
"""Kinds of arrays that travel: bool, integers, floating point, bytes and text."""

MOST_MAPS = 20_000
MOST_ITEMS = 4_000_000
"""Dictionaries, and list items, in one frame."""


class BadFrame(ForethoughtError):
    """A frame that is not what the protocol says."""


def need(package: str, extra: str = "serve") -> Any:
    """An optional module.

    Raises:
        ForethoughtError: It is not installed; names the extra that brings it.
    """
    import importlib

    try:
        return importlib.import_module(package)
    except ImportError as error:
        raise ForethoughtError(
            f"This needs {package} ({error}). Install it with: pip install 'forethought[{extra}]'"
        ) from error


def pack(message: Any) -> bytes:
    """A frame of dictionaries, lists, text, numbers, arrays and tensors.

    Raises:
        BadFrame: Something in it has no place in the format.
    """
    try:
        return need("msgpack").packb(message, default=_encoded)
    except (TypeError, ValueError, OverflowError, RecursionError) as error:
        raise BadFrame(
            f"Cannot send this: {error}. The format knows numbers, text, arrays, lists and dictionaries."
        ) from error


def unpack(frame: Any) -> Any:
    """What a frame holds; arrays are writable copies.

    Raises:
        BadFrame: It is text, or is not whole msgpack, or an array in it does not fit its description.
    """
    if isinstance(frame, str):
        raise BadFrame(f"Expected a binary msgpack frame; got text: {frame[:200]!r}.")
    counted = _Counted()
    try:
        return need("msgpack").unpackb(
            frame, object_hook=counted.mapping, list_hook=counted.sequence, ext_hook=_no_extension
        )
    except ForethoughtError:
        raise
    except Exception as error:  # msgpack raises some ten kinds, some without words
        words = str(error) or "it ends too early or is no msgpack"
        raise BadFrame(
            f"A frame of {len(frame)} bytes is not whole msgpack ({type(error).__name__}: {words})."
        ) from error


def unpack_request(frame: Any) -> dict[str, Any]:
    """An observation: what a frame holds, which must be a dictionary with text as keys.

    Raises:
        BadFrame: It is something else.
    """
    request = unpack(frame)
    if not isinstance(request, dict):
        raise BadFrame(
            f"Expected an observation, a dictionary of images, state and prompt; got "
            f"{type(request).__name__}."
        )
    strange = [key for key in request if not isinstance(key, str)]
    if strange:
        raise BadFrame(f"The keys of an observation must be text; got {strange[:5]}.")
    return request


def _encoded(value: Any) -> Any:
    if hasattr(value, "detach"):
        value = value.detach().cpu()
        value = (value.float() if "bfloat16" in str(value.dtype) else value).numpy()
    if not isinstance(value, (np.ndarray, np.generic)):
        raise TypeError(f"{type(value).__name__} has no form in it")
    if value.dtype.kind not in NUMBERS_AND_TEXT:
        raise TypeError(f"an array of {value.dtype} has no form in it")
    if isinstance(value, np.ndarray):
        return {
            b"__ndarray__": True,
            b"data": value.tobytes(),
            b"dtype": value.dtype.str,
            b"shape": value.shape,
        }
    return {b"__npgeneric__": True, b"data": value.item(), b"dtype": value.dtype.str}


class _Counted:
    """The hooks of one frame: they turn descriptions into arrays, and count."""

    def __init__(self) -> None:
        self.maps = self.items = 0

    def mapping(self, found: dict[Any, Any]) -> Any:
        self.maps += 1
        if self.maps > MOST_MAPS:
            raise BadFrame(f"A frame may hold {MOST_MAPS} dictionaries; this one has more.")
        if b"__ndarray__" in found or "__ndarray__" in found:
            return _array(*(_part(found, name) for name in ("data", "dtype", "shape")))
        if b"__npgeneric__" in found or "__npgeneric__" in found:
            return _scalar(_part(found, "data"), _part(found, "dtype"))
        return found

    def sequence(self, found: list[Any]) -> list[Any]:
        self.items += len(found) + 1
        if self.items > MOST_ITEMS:
            raise BadFrame(f"A frame may hold {MOST_ITEMS} list items; this one has more. Send arrays.")
        return found


def _part(found: Mapping[Any, Any], name: str) -> Any:
    return found[name.encode()] if name.encode() in found else found.get(name)


def _dtype(given: Any) -> np.dtype:
    text = given.decode("ascii", "replace") if isinstance(given, bytes) else given
    try:
        dtype = np.dtype(text) if isinstance(text, str) and len(text) <= 16 else None
    except Exception:  # numpy raises several kinds, SyntaxError among them
        dtype = None
    if dtype is None or dtype.kind not in NUMBERS_AND_TEXT or dtype.shape:
        raise BadFrame(f"An array of type {str(text)[:40]!r} is not accepted: numbers and text only.")
    return dtype


def _array(data: Any, dtype: Any, shape: Any) -> np.ndarray:
    kind = _dtype(dtype)
    if not isinstance(data, bytes) or not isinstance(shape, (list, tuple)):
        raise BadFrame(
            f"An array needs data (bytes) and shape (a list); got {type(data).__name__} and "
            f"{type(shape).__name__}."
        )
    if len(shape) > 8 or not all(type(size) is int and 0 <= size < 2**40 for size in shape):
        raise BadFrame(f"An array has up to 8 sizes of 0 or more; got {str(list(shape))[:80]}.")
    if math.prod(shape) * kind.itemsize != len(data):
        raise BadFrame(
            f"An array of {kind} and shape {list(shape)} has {math.prod(shape) * kind.itemsize} bytes; "
            f"got {len(data)}."
        )
    if not kind.itemsize:
        return np.empty(shape, kind) if math.prod(shape) <= MOST_ITEMS else np.empty(0, kind)
    return np.frombuffer(bytearray(data), kind).reshape(shape)


def _scalar(data: Any, dtype: Any) -> np.generic:
    kind = _dtype(dtype)
    if not isinstance(data, (bool, int, float, str, bytes)):
        raise BadFrame(f"A number of type {kind} cannot be a {type(data).__name__}.")
    try:
        with np.errstate(over="ignore"):
            return kind.type(data)
    except (TypeError, ValueError, OverflowError) as error:
        raise BadFrame(f"{str(data)[:40]!r} is no number of type {kind} ({error}).") from error


def _no_extension(code: int, data: bytes) -> Any:
    raise BadFrame(f"msgpack extension {code} ({len(data)} bytes) is not part of the protocol.")
