"""Kinds of damage. Each puts a file, and a manifest that names it, into an empty folder."""

from __future__ import annotations

import contextlib
import copy
import io
import json
import os
import pickle
import random
import re
import struct
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

from tests.fuzz.honest import NAME, Honest, join, place

Damage = Callable[[random.Random, Honest, list[Honest], Path], None]
KINDS: dict[str, Damage] = {}
SIZES = (2**31, 2**32, 2**53, 2**63, 2**64, 10**9, 10**30)
NUMBERS = (0, 1, -1, 2, 3, 4, 255, *SIZES, 0.5, -0.0, 1e308)
OTHERS = (True, False, None, "", "3", "relu", "float32", "float64", "Linear", "Sequential", "Sum")
ODD: tuple[Any, ...] = (
    *("..", "/etc/passwd", "\x00", "\ud800", "a" * 3000),
    *([], {}, [[]], {"same": 0}, {"same": -1}),
)
FLOATS = (float("nan"), float("inf"), -float("inf"))
DTYPE_BYTES = {"F16": 2, "F32": 4, "F64": 8, "I16": 2, "I32": 4, "I64": 8, "BF16": 2, "U32": 4}
ARGUMENTS = (  # that constructors take and files do not have, or have as something else
    *(("seed", 1), ("init", "zeros"), ("device", "cpu"), ("dtype", "<f4"), ("dtype", "f4")),
    *(("bias", 1), ("inverse", 0), ("eps", "1e-5"), ("rate", "0.5"), ("extra", None)),
)
TRAP = "trap"  # what a pickle would make if anything loaded it


def kind(damage: Damage) -> Damage:
    """Register a kind of damage under its name."""
    KINDS[damage.__name__] = damage
    return damage


# bytes -------------------------------------------------------------------------------------------


@kind
def honest(rng: random.Random, base: Honest, others: list[Honest], folder: Path) -> None:
    """None at all."""
    place(folder, base.content)


@kind
def bit_flips(rng: random.Random, base: Honest, others: list[Honest], folder: Path) -> None:
    """A few bits, in the header as often as behind it."""
    content, size = bytearray(base.content), int.from_bytes(base.content[:8], "little")
    for _ in range(rng.choice((1, 1, 2, 10))):
        at = rng.randrange(rng.choice((8, 8 + size, 8 + size, len(content))))
        content[at] ^= 1 << rng.randrange(8)
    place(folder, bytes(content))


@kind
def cut_or_longer(rng: random.Random, base: Honest, others: list[Honest], folder: Path) -> None:
    """Fewer bytes, more bytes, or a piece in the middle gone."""
    content = base.content
    at, end = sorted(rng.randrange(len(content) + 1) for _ in range(2))
    more = rng.randbytes(rng.choice((1, 8, 1000)))
    place(folder, rng.choice((content[:at], content + more, content[:at] + content[end:])))


@kind
def random_bytes(rng: random.Random, base: Honest, others: list[Honest], folder: Path) -> None:
    """Noise, with an honest beginning or without."""
    place(folder, base.content[: rng.choice((0, 8, 9, 100))] + rng.randbytes(rng.randrange(2000)))


@kind
def wrong_length(rng: random.Random, base: Honest, others: list[Honest], folder: Path) -> None:
    """Another length of the header."""
    honest_size, content = int.from_bytes(base.content[:8], "little"), base.content
    sizes = (0, 1, honest_size - 1, honest_size + 1, len(content) - 8, 2**22, 2**40, 2**64 - 1)
    place(folder, rng.choice(sizes).to_bytes(8, "little") + content[8:])


@kind
def swapped_headers(rng: random.Random, base: Honest, others: list[Honest], folder: Path) -> None:
    """The header of one file, or only its metadata, before the arrays of another."""
    header, _ = rng.choice(others).parts()
    mine, content = base.parts()
    if rng.random() < 0.5:
        mine["__metadata__"] = header.get("__metadata__", {})
        header = mine
    place(folder, join(header, content))


@kind
def archives(rng: random.Random, base: Honest, others: list[Honest], folder: Path) -> None:
    """A zip bomb or a pickle with the name of a model."""
    if rng.random() < 0.5:
        buffer = io.BytesIO()
        with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as archive:
            archive.writestr("data.pkl", bytes(10**6 * rng.choice((1, 10))))
        place(folder, buffer.getvalue())
        return

    class Trap:
        def __reduce__(self) -> tuple[Any, ...]:
            return os.mkdir, (str(folder / TRAP),)

    place(folder, pickle.dumps(Trap(), rng.randrange(pickle.HIGHEST_PROTOCOL + 1)))


# values in JSON ----------------------------------------------------------------------------------


def paths(value: Any, at: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    """Where the values inside a JSON value are."""
    found = [at]
    if isinstance(value, dict | list):
        parts = value.items() if isinstance(value, dict) else enumerate(value)
        for name, part in parts:
            found += paths(part, (*at, name))
    return found


def mutated(rng: random.Random, value: Any) -> Any:
    """A JSON value in which something is another number, name, type, place or depth."""
    value = copy.deepcopy(value)
    places = [at for at in paths(value) if at]
    if not places:
        return rng.choice((*NUMBERS, *OTHERS, *ODD))
    *above, name = rng.choice(places)
    parent = value
    for step in above:
        parent = parent[step]
    old, choice = parent[name], rng.randrange(9)
    if choice == 0:
        del parent[name]
    elif choice == 1 and isinstance(parent, dict):
        parent[rng.choice(("same", "module", "device", "seed", f"{name}x"))] = parent.pop(name)
    elif choice == 2:
        parent[name] = nested(rng, old)
    elif choice == 3:
        other = value
        for step in rng.choice(places):
            other = other[step]
        parent[name] = copy.deepcopy(other)
    elif choice == 4 and isinstance(old, int | float):
        parent[name] = rng.choice((old + 1, old - 1, -old, old * 1000, float(old), str(old)))
    elif choice == 5 and isinstance(parent, list):
        parent += [old] * rng.choice((1, 2, 50))
    elif choice == 6:
        parent[name] = {"same": rng.choice((*range(12), *NUMBERS, "0"))}
    else:
        parent[name] = rng.choice((*NUMBERS, *NUMBERS, *OTHERS, *ODD, *FLOATS))
    return value


def nested(rng: random.Random, value: Any) -> Any:
    """A value inside many lists, or in residual networks of residual networks."""
    for _ in range(rng.choice((1, 2, 20))):
        if rng.random() < 0.5:
            value = {"module": "Residual", "config": {"inner": value}}
        else:
            value = [value]
    return value


def damaged_text(rng: random.Random, text: str) -> str:
    """JSON with characters gone or put in, a name twice, or too deep or long to be read."""
    at, end = sorted(rng.randrange(len(text) + 1) for _ in range(2))
    choice = rng.randrange(7)
    names = list(re.finditer(r'"[^"\\]*": ', text))
    if choice == 0:
        return text[:at] + text[at + rng.choice((1, 2, 10)) :]
    if choice == 1:
        return text[:at] + str(rng.choice([*'"\\[]{},0', "NaN", "1e999"])) + text[at:]
    if choice == 2 and names:
        name = rng.choice(names)
        return text[: name.start()] + name.group() + "1, " + text[name.start() :]
    if choice == 3:
        return rng.choice(("[", '{"a":', '["', "[[],")) * rng.choice((100, 5000, 100_000))
    if choice == 4:
        one = rng.choice(("[],", "{},", "1.5,", '"ab",', "9999999999999,", '{"":0},'))
        return f'{{"a": [{one * rng.choice((10**3, 10**5))} 1]}}'
    number = re.search(r"(?<=[: \[])\d+(?=[,\]}])", text[at:])
    if choice == 5 and number:
        deep = rng.choice((5, 100, 300, 3000))
        return f"{text[: at + number.start()]}{'[' * deep}1{']' * deep}{text[at + number.end() :]}"
    return text[:at] + text[end:]


def changed(rng: random.Random, value: Any) -> str:
    """The text of a value after a few mutations, or after damage to the text itself."""
    for _ in range(rng.choice((1, 1, 2, 4))):
        value = mutated(rng, value)
    text = json.dumps(value)
    return damaged_text(rng, text) if rng.random() < 0.3 else text


@kind
def metadata(rng: random.Random, base: Honest, others: list[Honest], folder: Path) -> None:
    """Architecture, streams, info or state: the JSON inside the header."""
    header, content = base.parts()
    texts = header.get("__metadata__", {})
    name = rng.choice(("architecture", "architecture", "streams", "info", "state"))
    name = name if name in texts else rng.choice(list(texts) or ["architecture"])
    try:
        texts[name] = changed(rng, json.loads(texts.get(name, "{}")))
    except ValueError:  # "gpunn" is no JSON
        texts[name] = rng.choice(("", "1", "2", "0", "gpunn", "gpunn checkpoint", "\x00"))
    header["__metadata__"] = texts
    place(folder, join(header, content))


@kind
def headers(rng: random.Random, base: Honest, others: list[Honest], folder: Path) -> None:
    """The header itself: its entries, dtypes, shapes and offsets."""
    header, content = base.parts()
    kept = header.pop("__metadata__", {}) if rng.random() < 0.7 else None
    text = changed(rng, header)
    if kept is not None and text.startswith("{"):
        text = f'{{"__metadata__": {json.dumps(kept)}, {text[1:]}'
    place(folder, join(text, content))


@kind
def huge(rng: random.Random, base: Honest, others: list[Honest], folder: Path) -> None:
    """Layers and arrays far larger than the file."""
    header, content = base.parts()
    many = rng.choice((10**6, 10**9, 2**31, 2**40, 10**18, 10**30))
    layer = {"in_features": many, "out_features": rng.choice((1, 3, many))}
    norm = {"module": "BatchNorm", "config": {"features": many}}
    specs = ({"module": "Linear", "config": layer}, norm)
    if rng.random() < 0.5:
        entry = header[rng.choice([name for name in header if name != "__metadata__"])]
        entry["shape"] = [many] * rng.choice((1, 2, 3))
        if rng.random() < 0.5:
            entry["data_offsets"][1] = many
    if header.get("__metadata__", {}).get("architecture"):
        header["__metadata__"]["architecture"] = json.dumps(rng.choice(specs))
        header["__metadata__"]["streams"] = "[]"
    place(folder, join(header, rng.choice((content, b""))))


@kind
def overlaps(rng: random.Random, base: Honest, others: list[Honest], folder: Path) -> None:
    """Arrays that share bytes, or leave some out, of sizes that are right for each of them."""
    header, content = base.parts()
    names = [name for name in header if name != "__metadata__"]
    for name in rng.sample(names, min(len(names), rng.choice((1, 2)))):
        first, last = header[name]["data_offsets"]
        start = rng.choice((0, 1, first + 4, first - 4, max(len(content) - last + first, 0), first))
        header[name]["data_offsets"] = [start, start + last - first]
    if rng.random() < 0.3:
        header["stranger"] = copy.deepcopy(header[rng.choice(names)])
    place(folder, join(header, content))


@kind
def other_arrays(rng: random.Random, base: Honest, others: list[Honest], folder: Path) -> None:
    """A file that is whole, with an array that is gone, new, renamed, of another shape or dtype."""
    header, content = base.parts()
    kept = header.pop("__metadata__", None)
    arrays = {
        n: [e["dtype"], e["shape"], content[slice(*e["data_offsets"])]] for n, e in header.items()
    }
    name = rng.choice(list(arrays))
    code, shape, data = arrays[name]
    choice = rng.randrange(6)
    if choice == 0:
        del arrays[name]
    elif choice == 1:
        arrays[rng.choice((f"{name}x", "stranger", "callback.0.x", "model.x"))] = arrays[name]
    elif choice == 2:
        arrays[name] = [
            code,
            rng.choice((shape[::-1], [*shape, 1], [len(data) // DTYPE_BYTES[code]])),
            data,
        ]
    elif choice == 3:
        same = [c for c, size in DTYPE_BYTES.items() if size == DTYPE_BYTES[code] and c != code]
        arrays[name] = [rng.choice(same), shape, data]
    elif choice == 4:
        wide = rng.choice((2, 4, 8))
        codes = [c for c, size in DTYPE_BYTES.items() if size == wide]
        arrays[name] = [rng.choice(codes), shape, bytes(len(data) // DTYPE_BYTES[code] * wide)]
    else:
        value = rng.choice((float("nan"), float("inf"), -1.0, 1e30))
        kind = {"F16": "e", "F32": "f", "F64": "d"}.get(code)
        many = len(data) // DTYPE_BYTES[code]
        with contextlib.suppress(OverflowError):
            data = struct.pack("<" + kind, value) * many if kind else b"\xff" * len(data)
        arrays[name] = [code, shape, data]
    header, content = {}, b""
    for name, (code, shape, data) in arrays.items():
        offsets = [len(content), len(content) + len(data)]
        header[name] = {"dtype": code, "shape": shape, "data_offsets": offsets}
        content += data
    place(folder, join(header if kept is None else header | {"__metadata__": kept}, content))


@kind
def arguments(rng: random.Random, base: Honest, others: list[Honest], folder: Path) -> None:
    """What constructors forgive a person, and a file must not use."""
    header, content = rng.choice([file for file in others if file.kind == "model"]).parts()
    spec = json.loads(header["__metadata__"]["architecture"])
    configs = [at for at in paths(spec) if at and at[-1] == "config"]
    config = spec
    for step in rng.choice(configs):
        config = config[step]
    name, value = rng.choice(ARGUMENTS)
    config[name if rng.random() < 0.5 or not config else rng.choice(list(config))] = value
    header["__metadata__"]["architecture"] = json.dumps(spec)
    place(folder, join(header, content))


# folders -----------------------------------------------------------------------------------------


@kind
def manifests(rng: random.Random, base: Honest, others: list[Honest], folder: Path) -> None:
    """The manifest of a folder of checkpoints."""
    place(folder, base.content)
    if rng.random() < 0.2:  # bytes that are another file than the manifest has the checksum of
        content = bytearray(base.content)
        content[rng.randrange(len(content) // 2, len(content))] ^= 1
        (folder / NAME).write_bytes(content)
        return
    path = folder / "manifest.json"
    value = json.loads(path.read_text())
    if rng.random() < 0.3:
        names = ("..", ".", "/dev/zero", f"../{NAME}", f"./{NAME}")
        value["checkpoints"][0]["file"] = rng.choice(names)
        path.write_text(json.dumps(value))
    elif rng.random() < 0.2:
        path.write_bytes(rng.randbytes(rng.choice((0, 50, 10**6))))
    else:
        path.write_text(changed(rng, value), errors="surrogatepass")


@kind
def no_files(rng: random.Random, base: Honest, others: list[Honest], folder: Path) -> None:
    """Folders, pipes, devices and links that lead out of the folder, where files should be."""
    place(folder, base.content)
    path = folder / rng.choice((NAME, NAME, "manifest.json"))
    outside = folder.parent / "outside"
    outside.write_bytes(path.read_bytes())
    path.unlink()
    choice = rng.randrange(5)
    if choice == 0:
        path.mkdir()
    elif choice == 1:
        os.mkfifo(path)
    elif choice == 2:
        path.symlink_to("/dev/zero")
    elif choice == 3:
        path.symlink_to(folder / "nowhere")
    else:
        path.symlink_to(outside)
