"""Inputs: valid ones, and what becomes of them by chance. Everything from one seed."""

from __future__ import annotations

import io
import random
import struct
import zipfile
from collections.abc import Callable, Iterator

import numpy as np

from tests.builders import TRICLINIC, old_style, water_model
from tests.fuzz.targets import N_ATOMS
from tests.serve.server_double import batch_posdata, init, message, posdata

NUMBERS = (0, 1, 2, 3, 4, 7, 12, 127, 128, 255, 256, 4096, 4097, 65535, 65536, 65537,
           2**31 - 1, 2**31, 2**32 - 1, -1, -2, -(2**31))  # fmt: skip
X = np.array([[0.0, 0.0, 0.0], [0.0, 0.0, 1.1]])


def anything(rng: random.Random, data: bytes, others: list[bytes]) -> bytes:
    """Change a few bytes, whatever they mean."""
    out = bytearray(data)
    for _ in range(rng.choice((1, 1, 1, 2, 3, 8))):
        at = rng.randrange(len(out) + 1)
        kind = rng.randrange(9)
        if kind == 0 and out:
            out[at % len(out)] ^= 1 << rng.randrange(8)
        elif kind == 1 and out:
            out[at % len(out)] = rng.randrange(256)
        elif kind == 2:
            del out[at : at + rng.choice((1, 2, 4, 12, 50))]
        elif kind == 3:
            out[at:at] = rng.randbytes(rng.choice((1, 2, 4, 12, 50)))
        elif kind == 4:
            out[at : at + 4] = struct.pack("<I", rng.choice(NUMBERS) & 0xFFFFFFFF)
        elif kind == 5:
            end = at + rng.choice((12, 40, 200))
            out[at:at] = out[at:end] * rng.choice((1, 1, 3))
        elif kind == 6:
            other = rng.choice(others)
            start = rng.randrange(len(other) + 1)
            out[at : at + rng.choice((0, 12, 100))] = other[
                start : start + rng.choice((12, 100, 999))
            ]
        elif kind == 7:
            del out[at:]
        else:
            out[at : at + 8] = struct.pack("<d", rng.choice((0.0, np.nan, np.inf, -1e308, 1e-308)))
    return bytes(out)


# -- wire -------------------------------------------------------------------------------------

HEADERS = [message(name) for name in ("status", "init", "posdata", "getforce", "exit", "forceready",
                                      "havedata", "needinit", "ready", "quit", "")]  # fmt: skip
TEXTS = ["", "\0", " component : binding , ", " batch_size:3", "batch_size:4096", "batch_size:0",
         "batch_size:" + "9" * 30, "a:b:c,,:,x:", "é" * 20, "component:x" * 50]  # fmt: skip


def wire_message(rng: random.Random) -> bytes:
    kind = rng.randrange(7)
    if kind == 0:
        return message("status")
    if kind == 1:
        return init(rng.choice(TEXTS), rng.choice((0, 1, -1, 2**31 - 1)))
    if kind in (2, 3):
        return posdata(X * rng.choice((1.0, 0.0, np.nan))) + message("getforce")
    if kind == 4:
        n = rng.choice((1, 2, 3, 4))
        return batch_posdata(np.repeat(X[None], n, axis=0)) + message("getforce")
    return rng.choice(HEADERS)


def wire_inputs(rng: random.Random) -> Iterator[bytes]:
    """Yield conversations: in order, out of order, damaged."""
    assert len(X) == N_ATOMS
    good = [
        message("status") + init() + message("status") + posdata(X) + message("getforce"),
        init(" batch_size:3") + batch_posdata(np.repeat(X[None], 3, axis=0)) + message("getforce"),
        init() + posdata(X) + message("status") + message("getforce") + message("exit"),
    ]
    while True:
        parts = [wire_message(rng) for _ in range(rng.choice((1, 2, 3, 5)))]
        data = b"".join([*([rng.choice(good)] if rng.random() < 0.6 else []), *parts])
        yield data if rng.random() < 0.1 else anything(rng, data, good)


# -- model files ------------------------------------------------------------------------------


def archive(members: dict[str, bytes], how: int) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", how) as file:
        for name, data in members.items():
            file.writestr(name, data)
    return buffer.getvalue()


def as_member(array: object) -> bytes:
    buffer = io.BytesIO()
    np.save(buffer, np.asarray(array), allow_pickle=True)
    return buffer.getvalue()


SHAPES = ("()", "(0,)", "(1,)", "(3,)", "(3, 3)", "(1, 3)", "(-1,)", "(1000000000000,)", "(4, 0)",
          "(99999, 99999, 99999)", "3", "None", "(1.5,)", "('a',)")  # fmt: skip
KINDS = (
    "'<f8'", "'<f4'", "'>f8'", "'|O'", "'<c16'", "'<U3'", "'|S1'", "'|u1'", "'<i8'", "'<M8[s]'",
    "'|b1'", "'|V8'", "[('a', '<f8')]", "'<f1000000'", "''", "1",
)  # fmt: skip
STRANGE = ("../x.npy", "/x.npy", "std", "lattice.npy", "alphas_E.npy", "a/b", "type.npy")
VALUES: tuple[Callable[[random.Random], object], ...] = (
    lambda rng: rng.choice((0.0, -1.0, 1e300, 1e-300, np.nan, np.inf, 2.5)),
    lambda rng: np.zeros((rng.randrange(5), rng.randrange(5))),
    lambda rng: np.full(rng.randrange(6), rng.choice((0, 1, 200, -1, 2**40))),
    lambda rng: np.array(rng.choice(("m", "d", "t", "", "Ang", "bohr", "eV", "x" * 3000))),
    lambda rng: np.array(rng.choice((b"m", b"\xff\xfe", b""))),
    lambda rng: np.array([None, {}], dtype=object),
    lambda rng: np.arange(12).reshape(3, 4) * 1j,
    lambda rng: np.array(["1", "2"]),
    lambda rng: np.eye(3) * rng.choice((0.0, 1e-9, 10.0)),
    lambda rng: np.array([[0, 2, 1], [1, 0, 2]]),
)


def model_inputs(rng: random.Random) -> Iterator[bytes]:
    """Yield model files with other members, other headers, other bytes."""
    raws = [
        water_model(n_train=2),
        water_model(n_train=2, lattice=TRICLINIC, energy_constraints=True),
        old_style(water_model(n_train=1)),
    ]
    models = [{f"{key}.npy": as_member(value) for key, value in raw.items()} for raw in raws]
    whole = [archive(members, zipfile.ZIP_DEFLATED) for members in models]
    while True:
        members = dict(rng.choice(models))
        kind = rng.randrange(6)
        name = rng.choice(list(members))
        if kind == 0:
            yield anything(rng, rng.choice(whole), whole)
            continue
        if kind == 1:
            members[name] = as_member(rng.choice(VALUES)(rng))
        elif kind == 2:
            order = rng.choice(("True", "False", "0"))
            header = (
                f"{{'descr': {rng.choice(KINDS)}, 'fortran_order': {order}, "
                f"'shape': {rng.choice(SHAPES)}, }}\n"
            ).encode()
            body = rng.randbytes(rng.choice((0, 8, 24, 72)))
            version = rng.choice((b"\x01\x00", b"\x02\x00", b"\x03\x00", b"\x00\x00"))
            members[name] = b"\x93NUMPY" + version + struct.pack("<H", len(header)) + header + body
        elif kind == 3:
            members[name] = anything(rng, members[name], list(members.values()))
        elif kind == 4:
            members[
                rng.choice(("../x.npy", "/x.npy", "std", "lattice.npy", "alphas_E.npy", "a/b"))
            ] = members.pop(name)
        else:
            members.pop(name)
            members["perms.npy"] = as_member(rng.choice(VALUES)(rng))
        yield archive(members, rng.choice((zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED)))


# -- manifests --------------------------------------------------------------------------------

GOOD = """format: deltaserver-model/1
name: pair
reference: none
units: {length: Ang, energy: kcal/mol}
fragments:
  - {name: a, atoms: "0-2,5", model: a.npz}
  - {name: b, atoms: "3-4", model: b.npz}
  - {name: ion, atoms: 6, species: [Na], energy: -4.3, energy_unit: eV}
binding: {model: binding.npz}
"""
WORDS = (
    "0", "-1", "1e400", ".nan", ".inf", "null", "~", "true", "[]", "{}", "[[]]", "''", '"\\0"',
    "*a", "&a x", "!!binary AA==", "!!python/name:os.system", "!!set {a}", "!!omap [a: 1]",
    "<<: {a: 1}", "? a", "- ", "|", ">", "# ", "---", "...", "%YAML 9.9", "0-99999999", "0-999999",
    "5-1", "../secret.npz", "/etc/passwd", "out.npz", "a.npz/../../secret.npz", "\u2028",
    "2001-01-01", "12:30:45", "0x1F", "0b1", "1_000", "x" * 300, "fragments", "model", "atoms",
    "name", "total", "binding", "Xx", "kcal/mol", "furlong", "{model: binding.npz}",
)  # fmt: skip


def manifest_inputs(rng: random.Random) -> Iterator[bytes]:
    """Yield manifests with other words, lines and bytes."""
    words = [word for word in GOOD.replace(",", " , ").split(" ") if word]
    while True:
        text = GOOD
        for _ in range(rng.choice((1, 1, 2, 4))):
            kind = rng.randrange(5)
            if kind == 0:
                text = text.replace(rng.choice(words), rng.choice(WORDS), 1)
            elif kind == 1:
                at = rng.randrange(len(text) + 1)
                text = text[:at] + rng.choice(WORDS) + text[at:]
            elif kind == 2:
                lines = text.splitlines(keepends=True)
                rng.shuffle(lines)
                text = "".join(lines)
            elif kind == 3:
                lines = text.splitlines(keepends=True)
                text = "".join(lines + lines[rng.randrange(len(lines) + 1) :])
            else:
                text = anything(rng, text.encode(), [GOOD.encode()]).decode("utf-8", "replace")
        data = text.encode("utf-8", "surrogatepass")
        yield anything(rng, data, [GOOD.encode()]) if rng.random() < 0.2 else data


INPUTS = {"wire": wire_inputs, "model": model_inputs, "manifest": manifest_inputs}
