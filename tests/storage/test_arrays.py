"""Our writer of safetensors, read by the library of that name."""

from __future__ import annotations

import json

import ml_dtypes
import numpy as np
import pytest
from safetensors.numpy import load, save

from gpunn.errors import ArgumentError
from gpunn.storage.arrays import open_arrays, pack
from gpunn.storage.untrusted.bounded_json import Limits
from gpunn.storage.untrusted.header import DTYPES

pytestmark = pytest.mark.fast

ARRAYS = {
    **{f"a {code}": np.arange(6).reshape(2, 3).astype(dtype) for code, dtype in DTYPES.items()},
    "a number": np.array(2.5),
    "an empty one": np.zeros((0, 4), np.float32),
    "columns first": np.asfortranarray(np.arange(6.0).reshape(2, 3)),
    "every second": np.arange(10, dtype=np.int16)[::2],
    "the other end first": np.arange(3, dtype=">f4"),
    "Größe": np.ones((1, 1), bool),
}
METADATA = {"format": "gpunn", "info": '{"name": "Größe", "text": "a\\nb"}'}


def header_of(content):
    size = int.from_bytes(content[:8], "little")
    return 8 + size, json.loads(content[8 : 8 + size])


def test_the_library_reads_what_is_written(tmp_path):
    content = pack(ARRAYS, METADATA)
    found = load(content)
    assert found.keys() == ARRAYS.keys()
    for name, array in ARRAYS.items():
        assert found[name].dtype == array.dtype.newbyteorder("<")
        np.testing.assert_array_equal(found[name], array)
    assert header_of(content)[1]["__metadata__"] == METADATA


def test_what_the_library_writes_is_read(tmp_path):
    whole = {name: np.array(a, a.dtype.newbyteorder("<"), order="C") for name, a in ARRAYS.items()}
    (tmp_path / "theirs").write_bytes(save(whole, METADATA))
    with open_arrays(tmp_path / "theirs") as file:
        assert file.metadata == METADATA
        for name, array in ARRAYS.items():
            np.testing.assert_array_equal(np.asarray(file[name]), array)


def test_every_array_starts_at_a_multiple_of_its_element():
    content = pack(ARRAYS, METADATA)
    start, header = header_of(content)
    assert start % 8 == 0
    del header["__metadata__"]
    for entry in header.values():
        assert (start + entry["data_offsets"][0]) % DTYPES[entry["dtype"]].itemsize == 0


def test_the_order_of_names_does_not_matter():
    assert pack(ARRAYS) == pack(dict(reversed(ARRAYS.items())))


@pytest.mark.parametrize("dtype", [np.complex64, ml_dtypes.bfloat16, object, "U3"])
def test_other_dtypes_are_refused(dtype):
    with pytest.raises(ArgumentError, match=r"got weight of dtype .*; expected one of .*float32"):
        pack({"weight": np.zeros(2, dtype)})


def test_a_header_that_is_not_read_again_is_refused():
    with pytest.raises(ArgumentError, match="could not be read again"):
        pack(ARRAYS, limits=Limits(64, 2**18))
    with pytest.raises(ArgumentError, match="could not be read again"):
        pack(ARRAYS, {"text": "\ud800"})
