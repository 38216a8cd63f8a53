"""Readers and broken files: a typed error, or honest data; never memory on credit."""

from __future__ import annotations

import csv
import gzip
import io
import re
import struct
import tracemalloc
import warnings
import zipfile

import numpy as np
import pytest
from hypothesis import HealthCheck, assume, given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from gpunn.data import (
    csvfile,
    load_csv,
    load_features,
    load_mnist,
    load_npz,
    mnist,
    read_idx,
    write_idx,
)
from gpunn.errors import ArgumentError, DataError, GpunnError
from tests.fuzz.readers import CHECKS, check, whole_files

MEGABYTE = 1 << 20
bounded = settings(
    max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)


def peak_of(call, *args):
    """What a call gave or raised, and the most memory that it held."""
    tracemalloc.start()
    try:
        try:
            found = call(*args)
        except GpunnError as error:
            found = error
        return found, tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()


# random damage ------------------------------------------------------------------------------------


@st.composite
def broken(draw, content):
    """A file with some bytes changed, cut out or put in."""
    content = bytearray(content)
    for _ in range(draw(st.integers(1, 4))):
        place = draw(st.integers(0, max(len(content) - 1, 0)))
        length = draw(st.sampled_from([0, 1, 1, 2, 4, 1000]))
        content[place : place + length] = draw(
            st.one_of(
                st.binary(max_size=6),
                st.sampled_from(
                    [b"\xff" * 4, b"\0" * 4, b"PK\x01\x02", b"-1", b'"', b",,", b"9" * 20]
                ),
            )
        )
    return bytes(content)


CELLS = st.one_of(
    st.floats().map(repr),
    st.integers().map(str),
    st.text(max_size=4),
    st.sampled_from(
        ["", " ", '"', '""', '"a', "1_0", "nan", "1e999", "\u0661", "0x1", "\0", "\ufeff"]
    ),
)


@st.composite
def odd_tables(draw):
    """Something like a CSV file, in some encoding."""
    rows = draw(st.lists(st.lists(CELLS, min_size=1, max_size=3), max_size=5))
    head = draw(st.sampled_from(["a,y", "y", "a,b,y", '"a\n",y', "a,a", ""]))
    end = draw(st.sampled_from(["\n", "\r\n", "\r", "\n\n"]))
    text = end.join([head, *map(",".join, rows)])
    encoding = draw(
        st.sampled_from(["utf-8", "utf-8-sig", "utf-16", "utf-16-le", "latin-1", "utf-7"])
    )
    return text.encode(encoding, "replace")


@pytest.mark.parametrize("kind", CHECKS)
def test_damaged_files(kind, tmp_path):
    @bounded
    @given(st.sampled_from(whole_files(kind)).flatmap(broken))
    def damaged(content):
        _, peak = peak_of(check, kind, content, tmp_path)
        assert peak < 4 * MEGABYTE

    for content in whole_files(kind):
        check(kind, content, tmp_path)
    damaged()


@pytest.mark.parametrize("kind", CHECKS)
def test_truncated_files(kind, tmp_path):
    for content in whole_files(kind):
        for size in range(len(content)):
            check(kind, content[:size], tmp_path)


@bounded
@given(odd_tables())
def test_odd_tables(tmp_path, content):
    check("csv", content, tmp_path)


DTYPES = ["<f8", ">i2", "|O", "<U0", "<f16", "|b1", "S5", "<M8[s]", "V8", "i4,i4"]
HEADERS = st.one_of(
    st.fixed_dictionaries(
        {
            "descr": st.sampled_from([*DTYPES, 7, None, [("a", "<f8")], ("<f8", (2,))]),
            "fortran_order": st.sampled_from([True, False, 0, None]),
            "shape": st.one_of(
                st.lists(st.integers(-2, 3), max_size=3).map(tuple),
                st.sampled_from(
                    [(2**40,), (2**62, 4), (2**70, 0), (0, 2**70), (1,) * 70, (True,), 5]
                ),
            ),
        }
    ).map(repr),
    st.text(max_size=60),
    st.sampled_from(
        ["(" * 5000, "{'descr': 1L}", "{[]: 1}", "-" * 9000 + "1", "9" * 9000, "{1: 2, '': 3}"]
    ),
)


@bounded
@given(HEADERS, st.binary(max_size=64), st.sampled_from([1, 2, 3, 9]))
def test_headers_of_arrays(tmp_path, header, payload, version):
    text = header.encode()
    size = struct.pack("<H" if version == 1 else "<I", len(text))
    content = b"\x93NUMPY" + bytes((version, 0)) + size + text + payload
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w") as archive:
        archive.writestr("x.npy", content)
        archive.writestr("y.npy", content)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", SyntaxWarning)  # of literals in headers, told by Python
        for kind, whole in (("npy", content), ("npz", file.getvalue())):
            _, peak = peak_of(check, kind, whole, tmp_path)
            assert peak < 8 * MEGABYTE  # most of it Python's parser's


# honest files come back ---------------------------------------------------------------------------


NUMBERS = st.floats(width=32, allow_nan=False, allow_infinity=False)


@bounded
@given(
    arrays.arrays(
        np.float32, arrays.array_shapes(min_dims=2, max_dims=2, max_side=5), elements=NUMBERS
    ),
    st.sampled_from([csv.QUOTE_ALL, csv.QUOTE_MINIMAL, csv.QUOTE_NONNUMERIC]),
    st.sampled_from(["\n", "\r\n", "\r"]),
    st.sampled_from([",", ";", "\t", "|"]),
    st.sampled_from(["utf-8", "utf-8-sig"]),
)
def test_tables_come_back(tmp_path, x, quoting, end, delimiter, encoding):
    names = [f'c{k} "é\n{delimiter}"' for k in range(x.shape[1])]
    with (tmp_path / "t.csv").open("w", newline="", encoding=encoding) as file:
        writer = csv.writer(file, quoting=quoting, lineterminator=end, delimiter=delimiter)
        writer.writerows([names, *x.tolist()])
    found, _ = load_features(tmp_path / "t.csv", names[::-1], delimiter=delimiter)
    np.testing.assert_array_equal(found, x[:, ::-1])


@bounded
@given(
    arrays.arrays(
        st.sampled_from(["<f4", ">f8", "<f2", ">i4", "|u1", "|b1", "<u8"]),
        arrays.array_shapes(max_dims=4, max_side=4),
    ),
    st.sampled_from("CF"),
    st.sampled_from([np.savez, np.savez_compressed]),
)
def test_arrays_come_back(tmp_path, x, order, write):
    with np.errstate(over="ignore"):
        expected = np.ascontiguousarray(x).reshape(len(x), -1).astype(np.float32)
    assume(np.isfinite(expected).all())
    x = np.asarray(x, order=order)
    np.save(tmp_path / "a.npy", x)
    write(tmp_path / "a.npz", x=x)
    for name in ("a.npy", "a.npz"):
        found, _ = load_features(tmp_path / name)
        np.testing.assert_array_equal(found, expected)


# memory on credit ---------------------------------------------------------------------------------


def lying_zip(member, size, claimed):
    """An archive whose x.npy unpacks to `size` zeros behind a header, and claims another size."""
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("x.npy", member + bytes(size))
    content = bytearray(file.getvalue())
    place = content.index(b"PK\x01\x02") + 24
    assert struct.unpack_from("<I", content, place) == (len(member) + size,)
    struct.pack_into("<I", content, place, claimed)
    return bytes(content)


def npy_header(shape):
    file = io.BytesIO()
    np.lib.format.write_array_header_1_0(
        file, {"descr": "|u1", "fortran_order": False, "shape": shape}
    )
    return file.getvalue()


BOMB = 32 * MEGABYTE
HEADER = npy_header((BOMB, 1))
SMALL = npy_header((10, 1))


IDX = bytes((0, 0, 8, 3)) + struct.pack(">3I", 4_000_000_000, 28, 28) + bytes(99)
LONG_IDX = bytes((0, 0, 8, 1)) + struct.pack(">I", 10) + bytes(BOMB)
BOMBS = {
    "npz promises more": ("x.npz", lying_zip(HEADER, 100, len(HEADER) + BOMB), "cannot be read"),
    "npz holds more": (
        "x.npz",
        lying_zip(SMALL, BOMB, len(SMALL) + BOMB),
        f"array x of .* with {BOMB} bytes of data; expected 10 for",
    ),
    "npz denies more": ("x.npz", lying_zip(SMALL, BOMB, len(SMALL) + 10), "array x of .*Bad CRC"),
    "npy promises more": ("x.npy", HEADER + bytes(100), f"100 bytes of data; expected {BOMB}"),
    "npy promises all": ("x.npy", npy_header((2**62, 2**62)) + bytes(100), "100 bytes of data"),
    "npy holds more": ("x.npy", SMALL + bytes(11), "11 bytes of data; expected 10"),
    "idx promises more": ("x.idx", IDX, "header asks for"),
    "idx.gz promises more": ("x.idx", gzip.compress(IDX), "header asks for"),
    "idx.gz holds more": ("x.idx", gzip.compress(LONG_IDX), "too long"),
}


@pytest.mark.parametrize(("name", "content", "words"), BOMBS.values(), ids=BOMBS)
def test_memory_is_what_the_file_holds(name, content, words, tmp_path):
    path = tmp_path / name
    path.write_bytes(content)
    read = read_idx if name == "x.idx" else load_features
    peak_of(read, path)  # imports
    found, peak = peak_of(read, path)
    assert isinstance(found, DataError), found
    assert re.search(words, str(found)), found
    assert peak < MEGABYTE


def test_a_line_without_an_end_is_not_held(tmp_path, monkeypatch):
    monkeypatch.setattr(csvfile, "MAX_RECORD", 1000)
    (tmp_path / "t.csv").write_text("a,b\n" + "1,2\n" * 1000)
    x, _ = load_features(tmp_path / "t.csv")  # it is records that are short
    assert len(x) == 1000
    (tmp_path / "t.csv").write_text("a,b\n" + "1" * MEGABYTE)
    found, peak = peak_of(load_features, tmp_path / "t.csv")
    assert "more than 1000 characters in the record that ends at line 2" in str(found)
    assert peak < MEGABYTE // 2


def test_a_member_that_nobody_asked_for_is_not_unpacked(tmp_path):
    np.savez_compressed(tmp_path / "a.npz", x=np.ones((3, 2)), huge=np.zeros(BOMB, np.uint8))
    load_features(tmp_path / "a.npz")
    (x, _), peak = peak_of(load_features, tmp_path / "a.npz")
    assert x.shape == (3, 2)
    assert peak < MEGABYTE


def test_an_honest_array_takes_twice_its_size(tmp_path):
    x = np.zeros((4 * MEGABYTE, 2), np.float32)
    y = np.arange(len(x)) % 2
    np.savez_compressed(tmp_path / "a.npz", x=x, y=y.astype(np.int8))
    data, peak = peak_of(load_npz, tmp_path / "a.npz")
    assert peak < 2.5 * (data.x.nbytes + data.y.nbytes)
    write_idx(tmp_path / "a.gz", x.astype(np.uint8))
    images, peak = peak_of(read_idx, tmp_path / "a.gz")
    assert peak < 2.2 * images.nbytes


def test_mnist_files_of_other_sizes_are_refused(tmp_path):
    for name in mnist.SHA256:
        images = "images" in name
        shape = (4_000_000_000, 28, 28) if images else (10,)
        header = bytes((0, 0, 8, len(shape))) + struct.pack(f">{len(shape)}I", *shape)
        (tmp_path / f"{name}.gz").write_bytes(gzip.compress(header + bytes(10)))
    found, peak = peak_of(load_mnist, tmp_path)
    assert isinstance(found, DataError)
    assert peak < MEGABYTE


# CSV ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"a,y\n1,\x00b\n", "NUL byte in line 2"),
        (b'a,y\n1,"b"c\n', "cannot be read from line 2"),
        (b'a,y\n1,"b\n2,c\n', "cannot be read from line 4"),
        (b"a,y\n1," + b"b" * 200_000 + b"\n", "field larger than field limit"),
        (b"a,y\n" + b"1" * 100_000 + b",b\n", r"got '1{1,20}\.\.\.1{1,20}' in line 2"),
        (b",".join(b"c%d" % k for k in range(5000)) + b"\n1\n", "1 cells in line 2"),
        (b'a,y\n"' + b'","\n' * (csvfile.MAX_RECORD // 4 + 9), "record that ends at line"),
    ],
    ids=[
        "NUL",
        "text behind a quote",
        "an open quote",
        "a long field",
        "a long number",
        "a short row",
        "an endless record",
    ],
)
def test_odd_csv_files(content, words, tmp_path):
    path = tmp_path / "t.csv"
    path.write_bytes(content)
    with pytest.raises(DataError, match=words) as caught:
        load_features(path, target="y")
    assert len(str(caught.value)) < 600


@pytest.mark.parametrize("order", ["le", "be"])
def test_utf_16_without_a_mark_is_recognised(order, tmp_path):
    path = tmp_path / "t.csv"
    path.write_bytes("a,y\n1,b\n".encode(f"utf-16-{order}"))
    x, labels = load_features(path, target="y")
    assert (x.tolist(), labels) == ([[1.0]], ["b"])


def test_messages_about_wide_tables_are_short(tmp_path):
    path = tmp_path / "t.csv"
    path.write_text(",".join(f"c{k}" for k in range(5000)) + "\n")
    with pytest.raises(DataError, match="c23 and 4976 more; expected z too") as caught:
        load_features(path, ("z", "c1"))
    assert len(str(caught.value)) < 600


@pytest.mark.parametrize("delimiter", ["", ";;", "\n", '"', "\0"])
def test_delimiters_that_are_none(delimiter, tmp_path):
    (tmp_path / "t.csv").write_text("a,y\n1,b\n")
    with pytest.raises(ArgumentError, match="one character"):
        load_csv(tmp_path / "t.csv", "y", delimiter=delimiter)


def test_packings_that_numpy_does_not_write_are_refused(tmp_path):
    file = io.BytesIO()
    np.save(file, np.ones((2, 2)))
    for method in (zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA):
        with zipfile.ZipFile(tmp_path / "a.npz", "w", method) as archive:
            archive.writestr("x.npy", file.getvalue())
        with pytest.raises(DataError, match="compressed by method"):
            load_features(tmp_path / "a.npz")


@pytest.mark.parametrize("cut", [-1, -9, 40])
def test_gzip_files_that_are_cut_or_changed(cut, tmp_path):
    path = tmp_path / "a.gz"
    write_idx(path, np.arange(1000, dtype=np.int32))
    content = bytearray(path.read_bytes())
    path.write_bytes(content[:cut])
    with pytest.raises(DataError, match="broken gzip"):
        read_idx(path)
    content[cut] ^= 0x55
    path.write_bytes(content)
    with pytest.raises(DataError):
        read_idx(path)
