"""The wire format: what openpi publishes, and nothing that hurts."""

from __future__ import annotations

import pickle
import random

import msgpack
import numpy as np
import pytest

from forethought.interfaces import ForethoughtError
from forethought.wrappers.serving.wire import BadFrame, pack, unpack, unpack_request

IMAGE = np.arange(2 * 3 * 3, dtype=np.uint8).reshape(2, 3, 3)


def published(array: np.ndarray) -> dict:
    """An array as openpi_client.msgpack_numpy describes it."""
    return {
        b"__ndarray__": True,
        b"data": array.tobytes(),
        b"dtype": array.dtype.str,
        b"shape": list(array.shape),
    }


def test_frames_are_byte_for_byte_those_that_are_published():
    message = {"image": IMAGE, "prompt": "go", "n": 3, "x": 0.5, "flag": True, "none": None}
    assert pack(message) == msgpack.packb({**message, "image": published(IMAGE)})
    generic = {b"__npgeneric__": True, b"data": 2.5, b"dtype": "<f4"}
    assert pack({"x": np.float32(2.5)}) == msgpack.packb({"x": generic})


@pytest.mark.parametrize("dtype", ["<f4", "<f8", "<f2", "|u1", "<i8", "|b1", "<U5", "|S3", ">f4"])
def test_arrays_come_back_equal_and_writable(dtype):
    array = np.array([[0, 1, 2], [3, 4, 5]]).astype(dtype)
    back = unpack(pack({"a": array}))["a"]
    assert back.dtype == array.dtype and np.array_equal(back, array)
    back[0, 0] = back[1, 1]


def test_an_array_that_is_not_contiguous_is_sent_as_it_reads():
    assert np.array_equal(unpack(pack(IMAGE[::-1, ::-1])), IMAGE[::-1, ::-1])


def test_tensors_are_sent_as_arrays():
    import torch

    sent = pack({"actions": torch.ones(2, 3, dtype=torch.bfloat16, requires_grad=True)})
    assert np.array_equal(unpack(sent)["actions"], np.ones((2, 3)))


@pytest.mark.parametrize(
    "value", [object(), np.array([object()]), np.zeros(2, "c8"), {"a": {1, 2}}, np.datetime64("2020-01-01")]
)
def test_what_the_format_has_no_form_for_is_not_sent(value):
    with pytest.raises(BadFrame, match="Cannot send"):
        pack(value)


def bad(**parts) -> bytes:
    changed = {key.encode(): value for key, value in parts.items()}
    return msgpack.packb({"a": {**published(IMAGE), **changed}}) or b""


BAD = {
    "text": "hello",
    "empty": b"",
    "cut": pack({"image": IMAGE})[:-3],
    "two in one": pack(1) + pack(2),
    "reserved byte": b"\xc1",
    "pickle": pickle.dumps({"a": 1}),
    "object array": bad(dtype="|O"),
    "structure": bad(dtype="i4,f4"),
    "complex": bad(dtype="<c8", shape=[2], data=bytes(16)),
    "void": bad(dtype="|V9", shape=[2], data=bytes(18)),
    "subarray": bad(dtype="(2,)i4"),
    "nonsense type": bad(dtype="import os"),
    "type is no text": bad(dtype=7),
    "type is missing": msgpack.packb({b"__ndarray__": True}),
    "too few bytes": bad(shape=[2, 3, 4]),
    "negative": bad(shape=[-2, -3, 3]),
    "huge": bad(shape=[2**62, 2**62]),
    "many dimensions": bad(shape=[1] * 40),
    "shape of text": bad(shape=["2", "3", "3"]),
    "shape is a number": bad(shape=18),
    "data is text": bad(data="abc"),
    "data is a list": bad(data=[1, 2]),
    "no such number": msgpack.packb({b"__npgeneric__": True, b"data": "x", b"dtype": "<f4"}),
    "number of a list": msgpack.packb({b"__npgeneric__": True, b"data": [1], b"dtype": "<f4"}),
    "extension": msgpack.packb(msgpack.ExtType(5, b"abc")),
    "deep": b"\x91" * 5000 + b"\xc0",
    "many dictionaries": b"\xdd" + (30_000).to_bytes(4, "big") + b"\x80" * 30_000,
    "list claims to be long": b"\xdd\xff\xff\xff\xff",
    "bytes claim to be long": b"\xc6\xff\xff\xff\xff1234",
    "keys of numbers": msgpack.packb({1: 2}),
}


@pytest.mark.parametrize("name", BAD)
def test_a_bad_frame_is_told_in_words(name):
    with pytest.raises(BadFrame) as told:
        unpack(BAD[name])
    assert len(str(told.value)) > 20


@pytest.mark.parametrize("message", [None, 3, "text", [1, 2], IMAGE, {b"bytes": 1}])
def test_a_request_is_a_dictionary_with_text_as_keys(message):
    with pytest.raises(BadFrame, match="observation"):
        unpack_request(pack(message))


def test_nothing_is_ever_unpickled(monkeypatch):
    """An object array with a pickle inside, by any spelling, never reaches pickle."""

    def fail(*args, **kwargs):
        raise AssertionError("unpickled")

    for name in ("load", "loads", "Unpickler"):
        monkeypatch.setattr(pickle, name, fail)
    data = pickle.dumps(np.array([1], object))
    for dtype in ("|O", "O", "O8", "object", "|V8", "|O8"):
        for shape in ([1], [len(data) // 8], []):
            with pytest.raises(BadFrame):
                unpack(bad(dtype=dtype, data=data, shape=shape))


def mutated(frame: bytes, luck: random.Random) -> bytes:
    """A frame with something broken: bytes changed, cut out, doubled, or put in."""
    data = bytearray(frame)
    for _ in range(luck.randint(1, 4)):
        at, kind = luck.randrange(len(data)), luck.randrange(5)
        if kind == 0:
            data[at] = luck.randrange(256)
        elif kind == 1:
            del data[at : at + luck.randint(1, 8)]
        elif kind == 2:
            data[at:at] = bytes(luck.randrange(256) for _ in range(luck.randint(1, 8)))
        elif kind == 3:
            data[at:at] = data[at : at + luck.randint(1, 30)]
        else:
            del data[at:]
        data = data or bytearray(b"\xc1")
    return bytes(data)


def test_ten_thousand_broken_frames_raise_nothing_but_words():
    luck = random.Random(0)
    frame = pack({"image": IMAGE, "state": np.zeros(8), "prompt": "go", "n": np.float32(1), "a": {"b": [1]}})
    told = []
    for _ in range(10_000):
        try:
            unpack_request(mutated(frame, luck))
        except ForethoughtError as error:
            told.append(str(error))
    assert len(told) > 5_000 and all(told)
