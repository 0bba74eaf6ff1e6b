"""One small trajectory, written in every way that users have."""

import numpy as np

from deltaserver.units import BOHR_ANG

SYMBOLS = ("O", "H", "H", "O", "H", "H")
WATER = np.array([[0.0, 0.0, 0.06], [0.76, 0.0, -0.52], [-0.76, 0.0, -0.52]])
START = np.concatenate([WATER, WATER + np.array([0.2, 0.1, 2.9])])
FRAMES = (START + np.random.default_rng(5).normal(scale=0.03, size=(5, 6, 3))).round(8)


def text(frames=FRAMES, symbols=SYMBOLS, comment="frame {k}", number="{:.8f}", row="{s} {x}"):
    """An XYZ file; ``row`` may hold i (from 1), s (symbol), x (the position) and z (others)."""
    lines = []
    for k, frame in enumerate(frames):
        lines += [str(len(frame)), comment.format(k=k, step=10 * k)]
        for i, (s, position) in enumerate(zip(symbols, frame, strict=True), start=1):
            x = " ".join(number.format(value) for value in position)
            lines.append(row.format(i=i, s=s, x=x, z="7.5 8.5 9.5"))
    return "\n".join(lines) + "\n"


CELL = "# CELL(abcABC): 300 300 300 90.0 90.0 90.0  Traj: "
EXTENDED = "Properties=species:S:1:pos:R:3 "
ALIKE = {
    "plain": text(),
    "blank lines": text().replace("\n6\n", "\n\n \n6\n"),
    "blank lines at the end": text() + "\n\n \n",
    "CRLF": text().replace("\n", "\r\n"),
    "BOM": "\ufeff" + text(),
    "no newline at the end": text()[:-1],
    "tabs": text().replace(" ", "\t"),
    "lower case": text(symbols=[s.lower() for s in SYMBOLS]),
    "numbers": text(symbols=["8", "1", "1", "8", "1", "1"]),
    "labels": text(symbols=["O1", "H2", "H3", "O_4", "H5", "H6"]),
    "isotopes": text(symbols=["O", "D", "H", "O", "T", "d"]),
    "Fortran": text(number="{:.9E}").replace("E+", "D+").replace("E-", "D-"),
    "Latin-1": text(comment="Wasser in Ångström {k}").encode("latin-1"),
    "more columns": text(row="{s} {x} {z}"),
    "i-PI in Å": text(comment=CELL + "positions{{angstrom}} Step: {step} Bead: 0 cell{{angstrom}}"),
    "i-PI in Bohr": text(
        FRAMES / BOHR_ANG, comment=CELL + "Step: {step} Bead: 0 positions{{atomic_unit}}",
        number="{:.10f}",
    ),
    "i-PI without units": text(
        FRAMES / BOHR_ANG, comment=CELL + "Step: {step} Bead: 0", number="{:.10f}"
    ),
    "i-PI in picometers": text(FRAMES * 100, comment=CELL + "Step: {step} positions{{picometer}}"),
    "i-PI's ase": text(comment=EXTENDED + 'ipi_comment="Step: {step} positions{{ase}}"'),
    "forces first": text(
        comment="Properties=species:S:1:forces:R:3:pos:R:3 step={step}", row="{s} {z} {x}"
    ),
    "identity first": text(
        comment="step={step} Properties=id:I:1:species:S:1:pos:R:3", row="{i} {s} {x}"
    ),
    "positions first": text(
        comment='Properties="pos:R:3:tags:I:1:element:S:1" step={step}', row="{x} {i} {s}"
    ),
    "atomic numbers": text(
        comment="Properties=Z:I:1:velo:R:3:pos:R:3", symbols=[8, 1, 1, 8, 1, 1], row="{s} {z} {x}"
    ),
    "time step": text(comment=EXTENDED + "timestep=0.5 time={step}"),
    "time step in words": text(comment="time step: 1 fs, energy: -3"),
    "CP2K": text(comment=" i =     {step}, time =     0.500, E =   -10.14"),
    "xtb": text(comment=" energy: -10.1475 gnorm: 0.004 xtb: 6.6.1"),
}  # fmt: skip
HAVE_STEPS = {
    "i-PI in Å", "i-PI in Bohr", "i-PI without units", "i-PI in picometers", "i-PI's ase", "CP2K",
    "forces first", "identity first", "positions first",
}  # fmt: skip


def as_bytes(content):
    """Return a file's content as bytes."""
    return content if isinstance(content, bytes) else content.encode()
