import gzip
import struct

import numpy as np
import pytest

from gpunn.data import read_idx, write_idx
from gpunn.errors import DataError, DTypeError, ShapeError

DTYPES = ["u1", "i1", "i2", "i4", "f4", "f8"]
ARRAY = np.arange(24, dtype=np.int16).reshape(2, 3, 4) - 5
CONTENT = bytes((0, 0, 0x0B, 3)) + struct.pack(">3I", 2, 3, 4) + ARRAY.astype(">i2").tobytes()


@pytest.fixture
def path(tmp_path):
    return tmp_path / "data.idx"


@pytest.mark.parametrize("name", ["a.idx", "a.idx.gz"])
@pytest.mark.parametrize("dtype", DTYPES)
def test_round_trip(tmp_path, name, dtype):
    array = (np.arange(30).reshape(5, 6) * 3.5).astype(dtype)
    write_idx(tmp_path / name, array)
    back = read_idx(tmp_path / name)
    assert back.dtype == array.dtype
    assert back.dtype.isnative
    assert back.flags.writeable
    np.testing.assert_array_equal(back, array)


def test_bytes_are_those_of_the_format(path):
    write_idx(path, ARRAY)
    assert path.read_bytes() == CONTENT


def test_big_endian_and_strided_arrays_are_written(path):
    write_idx(path, ARRAY.astype(">i2")[:, ::-1])
    np.testing.assert_array_equal(read_idx(path), ARRAY[:, ::-1])


def test_content_decides_about_gzip_not_the_name(tmp_path):
    (tmp_path / "plain.gz").write_bytes(CONTENT)
    (tmp_path / "zipped").write_bytes(gzip.compress(CONTENT))
    np.testing.assert_array_equal(read_idx(tmp_path / "plain.gz"), ARRAY)
    np.testing.assert_array_equal(read_idx(tmp_path / "zipped"), ARRAY)


def test_gzipped_bytes_carry_no_time(tmp_path):
    write_idx(tmp_path / "a.gz", ARRAY)
    content = (tmp_path / "a.gz").read_bytes()
    assert content[4:8] == b"\0\0\0\0"
    assert content[3] == 0  # no file name either


def test_zero_rows(path):
    write_idx(path, np.zeros((0, 28), np.uint8))
    assert read_idx(path).shape == (0, 28)


@pytest.mark.parametrize("size", range(len(CONTENT)))
def test_truncated_at_every_byte(path, size):
    path.write_bytes(CONTENT[:size])
    with pytest.raises(DataError, match=r"empty|begins with|truncated"):
        read_idx(path)


def test_gzip_truncated_at_every_byte(path):
    content = gzip.compress(CONTENT, mtime=0)
    for size in range(len(content)):
        path.write_bytes(content[:size])
        with pytest.raises(DataError):
            read_idx(path)


def test_whole_gzip_of_a_truncated_file(path):
    path.write_bytes(gzip.compress(CONTENT[:-1]))
    with pytest.raises(DataError, match="truncated"):
        read_idx(path)


@pytest.mark.parametrize("pack", [bytes, gzip.compress])
def test_too_long(path, pack):
    path.write_bytes(pack(CONTENT + b"\0"))
    with pytest.raises(DataError, match="too long"):
        read_idx(path)


def test_gzip_with_a_flipped_bit(path):
    content = bytearray(gzip.compress(CONTENT, mtime=0))
    content[-6] ^= 1  # in the CRC: all data arrive, but they aren't the ones that were stored
    path.write_bytes(content)
    with pytest.raises(DataError, match="broken gzip"):
        read_idx(path)


@pytest.mark.parametrize(
    "magic",
    ["01000803", "00010803", "00000703", "00000a03", "00000f03", "00000800", "000008ff"],
)
def test_wrong_magic(path, magic):
    path.write_bytes(bytes.fromhex(magic) + CONTENT[4:])
    with pytest.raises(DataError, match="not an IDX file"):
        read_idx(path)


def test_foreign_file(path):
    path.write_text("label,pixel\n1,2\n")
    with pytest.raises(DataError, match="6c 61 62 65"):
        read_idx(path)


@pytest.mark.parametrize("pack", [bytes, gzip.compress])
def test_absurd_sizes_allocate_nothing(path, pack):
    header = bytes((0, 0, 0x0E, 4)) + struct.pack(">4I", *[2**32 - 1] * 4)
    path.write_bytes(pack(header + bytes(100)))
    with pytest.raises(DataError, match="header asks for"):
        read_idx(path)


def test_absurd_sizes_beside_a_zero(path):
    path.write_bytes(bytes((0, 0, 0x0B, 4)) + struct.pack(">4I", 2**31, 0, 2**31, 2**31))
    with pytest.raises(DataError, match="header asks for"):
        read_idx(path)


def test_missing_file_and_folder(tmp_path):
    for place in (tmp_path / "none", tmp_path):
        with pytest.raises(DataError, match="cannot be read"):
            read_idx(place)


def test_write_refuses_what_idx_cannot_hold(path):
    with pytest.raises(DTypeError, match="int64"):
        write_idx(path, np.zeros(3, np.int64))
    with pytest.raises(ShapeError):
        write_idx(path, np.float32(1))
    assert not path.exists()
