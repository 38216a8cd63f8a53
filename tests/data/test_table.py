import numpy as np
import pytest

from gpunn.data import load_csv, load_features, load_npz
from gpunn.errors import DataError, DTypeError, ShapeError, UnknownNameError

pytestmark = pytest.mark.fast


@pytest.fixture
def csv(tmp_path):
    def write(text, **options):
        path = tmp_path / "table.csv"
        path.write_bytes(text if isinstance(text, bytes) else text.encode())
        return load_csv(path, options.pop("target", "y"), **options)

    return write


def test_text_classes(csv):
    data = csv("a,y,b\n1,pear,2\n3.5, apple ,-4e1\n\n5,pear,6\n")
    np.testing.assert_array_equal(data.x, [[1, 2], [3.5, -40], [5, 6]])
    assert data.x.dtype == np.float32
    assert (data.features, data.classes, data.name) == (("a", "b"), ("apple", "pear"), "table")
    assert data.y.tolist() == [1, 0, 1]


def test_whole_numbers_are_classes_sorted_by_value(csv):
    data = csv("a,y\n1,10\n1,9\n1,-1\n1,+9\n")
    assert data.classes == ("-1", "9", "10")
    assert data.y.tolist() == [2, 1, 0, 1]


def test_whole_floats_are_classes(csv):
    assert csv("a,y\n1,1.0\n1,2\n").classes == ("1", "2")


def test_large_identifiers_stay_apart(csv):
    data = csv(f"a,y\n1,{2**53}\n1,{2**53 + 1}\n")
    assert data.classes == (str(2**53), str(2**53 + 1))


def test_fractions_are_regression(csv):
    data = csv("a,y\n1,1.5\n1,2\n")
    assert data.classes is None
    assert data.y.tolist() == [[1.5], [2.0]]


def test_task_decides(csv):
    assert csv("a,y\n1,1\n1,2\n", task="regression").y.tolist() == [[1.0], [2.0]]
    with pytest.raises(DataError, match=r"'1.5' in line 3.*task='regression'"):
        csv("a,y\n1,1\n1,1.5\n", task="classification")
    with pytest.raises(DataError, match="'b' in line 3, column 'y'"):
        csv("a,y\n1,1\n1,b\n", task="regression")
    with pytest.raises(UnknownNameError, match="auto, classification, regression"):
        csv("a,y\n1,1\n", task="guess")


def test_many_different_labels_are_asked_about(csv):
    text = "a,y\n" + "".join(f"1,c{value}\n" for value in range(50))
    with pytest.raises(DataError, match="50 different values in 50 rows"):
        csv(text)
    assert len(csv(text, task="classification").classes) == 50


def test_many_different_whole_numbers_are_amounts(csv):
    def prices(different):
        return "a,y\n" + "".join(f"1,{1000 + n % different}\n" for n in range(200))

    assert len(csv(prices(20)).classes) == 20
    assert csv(prices(21)).classes is None
    assert len(csv(prices(21), task="classification").classes) == 21
    assert csv(prices(20), task="regression").y.shape == (200, 1)


@pytest.mark.parametrize("word", ["NA", "None", " null", "N/A", "?", "nan", "<NA>", "#N/A", "NaT"])
@pytest.mark.parametrize("task", ["auto", "classification", "regression"])
@pytest.mark.parametrize("others", [("0", "1"), ("yes", "no"), ("0.5", "1.5")])
def test_a_missing_target_is_not_a_class(csv, word, task, others):
    first, second = others
    with pytest.raises(DataError, match=r"in line (2|3), column 'y'.*expected"):
        csv(f"a,y\n1,{first}\n2,{word}\n3,{second}\n4,{first}\n", task=task)


@pytest.mark.parametrize(
    ("text", "match"),
    [
        (b"", "empty"),
        ("\n\n", "empty"),
        ("a,y\n", "no rows"),
        ("y\n1\n2\n", "features"),
        ("a,a,y\n1,2,3\n", "same name.*: a;"),
        (",a,y\n0,1,2\n", "no name for column 1"),
        ("a,y\n1,0\n1,1,1\n", "3 cells in line 3.*expected 2"),
        ("a,y\n1,0\n1\n", "1 cells in line 3"),
        ("a,b,y\n1,2,0\n1,,1\n", "no value in line 3, column 'b'"),
        ("a,b,y\n1,2,0\n1,red,1\n", "'red' in line 3, column 'b'"),
        ("a,y\n1,0\nnan,1\n", "'nan' in line 3, column 'a'"),
        ("a,y\n1,0\n\ninf,1\n", "'inf' in line 4, column 'a'"),
        ("a,y\n1,0\n1_000,1\n", "'1_000' in line 3, column 'a'"),
        ("a,y\n1,0\n1e60,1\n", "float32"),
        ("a,y\n1,0\n1,\n", "no value in line 3, column 'y'.*remove the row"),
        ("a,y\n1,0.5\n1,NaN\n", "'NaN' in line 3, column 'y'"),
        ("a,y\n1,0.5\n1,inf\n", "'inf' in line 3, column 'y'"),
        ("a,y\n1,0\n1,0\n", "only the value '0'"),
        ('a,y\n1,"x\n', "cannot be read"),
    ],
)
def test_refused(csv, text, match):
    with pytest.raises(DataError, match=match):
        csv(text)


def test_unknown_target_lists_the_columns(csv):
    with pytest.raises(UnknownNameError, match=r"'z'.*a, y"):
        csv("a,y\n1,0\n", target="z")


def test_missing_file(tmp_path):
    with pytest.raises(DataError, match="cannot be read"):
        load_csv(tmp_path / "none.csv", "y")


def test_byte_order_mark_quotes_and_delimiter(csv):
    data = csv(b'\xef\xbb\xbf"a ""b""";y\r\n1;"u;v"\r\n2;w\r\n', delimiter=";")
    assert data.features == ('a "b"',)
    assert data.classes == ("u;v", "w")


@pytest.fixture
def npz(tmp_path):
    def write(*, task="auto", **arrays):
        np.savez_compressed(tmp_path / "arrays.npz", **arrays)
        return load_npz(tmp_path / "arrays.npz", task=task)

    return write


X = np.arange(12.0).reshape(3, 2, 2)


def test_npz_images_are_flattened_and_labels_numbered(npz):
    data = npz(X=X, y=np.array([7, 3, 7]))
    np.testing.assert_array_equal(data.x, X.reshape(3, 4))
    assert (data.classes, data.y.tolist()) == (("3", "7"), [1, 0, 1])
    assert npz(x=X, y=np.array([[7], [3], [7]])).y.tolist() == [1, 0, 1]
    assert npz(x=X[:, 0, 0], y=np.array(["b", "a", "b"])).classes == ("a", "b")
    assert npz(x=X, y=np.array([True, False, True])).classes == ("False", "True")


def test_npz_a_missing_target_is_not_a_class(npz):
    with pytest.raises(DataError, match="'None' in row 1"):
        npz(x=X, y=np.array(["a", "None", "b"]))


def test_npz_regression(npz):
    assert npz(x=X, y=np.array([1.0, 2.0, 3.0])).y.shape == (3, 1)
    assert npz(x=X, y=np.zeros((3, 5), np.float32)).y.shape == (3, 5)
    assert npz(x=X, y=np.array([1, 2, 3]), task="regression").classes is None


@pytest.mark.parametrize(
    ("arrays", "error", "match"),
    [
        ({"x": X}, DataError, "arrays x;"),
        ({"a": X}, DataError, "arrays a;"),
        ({"x": X, "X": X, "y": np.arange(3)}, DataError, "X, x, y"),
        ({"x": X, "y": np.arange(2)}, ShapeError, "same number of rows"),
        ({"x": X[:0], "y": np.arange(0)}, DataError, "holds nothing"),
        ({"x": X, "y": np.zeros(3, int)}, DataError, "only the value '0'"),
        ({"x": X, "y": np.eye(3, dtype=int)}, ShapeError, "one-hot"),
        ({"x": X, "y": np.array([1.0, np.nan, 0])}, DataError, "row 1"),
        ({"x": X * np.nan, "y": np.arange(3)}, DataError, "row 0, column 0"),
        ({"x": X, "y": np.array([1, None, 2])}, DataError, "plain arrays"),
        ({"x": X, "y": np.array([1, 2, 3]) * 1j}, DTypeError, "complex"),
        ({"x": X.astype(str), "y": np.arange(3)}, DTypeError, "numbers"),
        ({"x": X, "y": np.array(["a", "b", "c"]), "task": "regression"}, DTypeError, "regress"),
        ({"x": X, "y": np.array([0.5, 1, 2]), "task": "classification"}, DTypeError, "float64"),
        ({"x": X, "y": np.arange(3), "task": "guess"}, UnknownNameError, "guess"),
    ],
)
def test_npz_refused(npz, arrays, error, match):
    with pytest.raises(error, match=match):
        npz(**arrays)


def test_npz_broken_files(tmp_path, npz):
    npz(x=X, y=np.arange(3))
    path = tmp_path / "arrays.npz"
    content = path.read_bytes()
    for size in range(0, len(content), 7):
        path.write_bytes(content[:size])
        with pytest.raises(DataError, match="cannot be read"):
            load_npz(path)
    flipped = bytearray(content)
    flipped[60] ^= 0xFF
    path.write_bytes(flipped)
    with pytest.raises(DataError, match="cannot be read"):
        load_npz(path)
    with path.open("wb") as file:
        np.save(file, X)
    with pytest.raises(DataError, match="not a zip file"):
        load_npz(path)
    path.unlink()
    with pytest.raises(DataError, match="cannot be read"):
        load_npz(path)


def test_unknown_target_is_named_before_a_text_column_is_refused(csv):
    with pytest.raises(UnknownNameError, match=r"'specis'.*a, species"):
        csv("a,species\n1,iris\n", target="specis")


def test_features_in_the_order_of_training(tmp_path):
    path = tmp_path / "new.csv"
    path.write_text("name,b,y,a\nanna,2,yes,1\nbert,4,no,3\n")
    x, labels = load_features(path, ("a", "b"), "y")
    assert (x.tolist(), x.dtype, labels) == ([[1, 2], [3, 4]], np.float32, ["yes", "no"])
    assert load_features(path, ("a", "b"), "z")[1] is None
    assert load_features(path, ("a",))[0].tolist() == [[1], [3]]
    with pytest.raises(DataError, match="expected c too"):
        load_features(path, ("a", "c"), "y")
    with pytest.raises(DataError, match="'anna' in line 2, column 'name'"):
        load_features(path, target="y")
    path.write_text("a\n1e60\n")
    with pytest.raises(DataError, match="float32"):
        load_features(path)


def test_features_of_npz(tmp_path):
    path = tmp_path / "new.npz"
    np.savez(path, X=X)
    x, labels = load_features(path)
    assert (x.shape, x.dtype, labels) == ((3, 4), np.float32, None)
    np.savez(path, x=X, y=np.array([1, 0, 2]))
    assert load_features(path)[1] == ["1", "0", "2"]
    for arrays in ({"y": X}, {"x": X[:0]}, {"x": X * np.nan}, {"x": np.array(1.0)}):
        np.savez(path, **arrays)
        with pytest.raises(DataError):
            load_features(path)
