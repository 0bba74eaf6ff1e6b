"""Trajectories and runs as i-PI writes them, for tests."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from scipy.spatial.transform import Rotation

SYMBOLS = ("O", "H", "H", "C", "H", "H", "H", "H")
FRAGMENTS = {"water": (0, 1, 2), "methane": (3, 4, 5, 6, 7)}
# a water molecule and a methane molecule 4 Å apart, Å
POSITIONS = np.array(
    [
        [0.0, 0.0, 0.0],
        [0.76, 0.59, 0.0],
        [-0.76, 0.59, 0.0],
        [0.0, 0.0, 4.0],
        [0.63, 0.63, 4.63],
        [-0.63, -0.63, 4.63],
        [-0.63, 0.63, 3.37],
        [0.63, -0.63, 3.37],
    ]
)


def ipi_frame(positions, step, symbols=SYMBOLS, unit="angstrom", bead=0):
    """One frame, byte for byte as i-PI's print_xyz writes it."""
    cell = "# CELL(abcABC): " + "  ".join(f"{v:10.5f}" for v in (300, 300, 300, 90, 90, 90))
    title = f"Step:  {step:10d}  Bead:   {bead:5d} positions{{{unit}}}  cell{{angstrom}}"
    lines = [f"{len(symbols)}\n{cell}  {title}\n"]
    for symbol, (x, y, z) in zip(symbols, positions, strict=True):
        lines.append("%8s %12.5e %12.5e %12.5e\n" % (symbol, x, y, z))  # noqa: UP031
    return "".join(lines)


def ipi_text(frames, steps, **given):
    return "".join(ipi_frame(p, int(s), **given) for p, s in zip(frames, steps, strict=True))


INPUT = """<simulation verbosity="low">
  <output prefix="run">
    <properties stride="1" filename="out">[ step, time{{picosecond}}, conserved{{electronvolt}},
      temperature{{kelvin}}, potential{{electronvolt}} ]</properties>
    <trajectory stride="10" filename="pos">positions{{angstrom}}</trajectory>
  </output>
  <system>
    <initialize nbeads="{beads}"/>
    <ensemble><temperature units="kelvin">{kelvin}</temperature></ensemble>
    <motion mode="dynamics"><fixcom>True</fixcom><dynamics mode="nvt">
      <timestep units="femtosecond">{timestep}</timestep></dynamics></motion>
  </system>
</simulation>
"""


def write_run(directory, frames, steps, kelvin=300.0, timestep=0.5, beads=1):
    """A run's directory: input.xml and a trajectory."""
    directory.mkdir(parents=True, exist_ok=True)
    text = INPUT.format(kelvin=kelvin, timestep=timestep, beads=beads)
    (directory / "input.xml").write_text(text)
    (directory / "run.pos_0.xyz").write_text(ipi_text(frames, steps))
    return directory


PROPERTIES_HEAD = """# column   1     --> step : The current simulation time step.
# column   2     --> time{picosecond} : The elapsed simulation time.
# column   3     --> conserved{electronvolt} : The value of the conserved energy quantity per bead.
# column   4     --> temperature{kelvin} : The current temperature.
# column   5     --> potential{electronvolt} : The physical system potential energy.
"""


def write_properties(path: Path, steps, conserved, temperature, potential, timestep=0.5):
    rows = [
        f"  {s:16.8e} {1e-3 * timestep * s:16.8e} {c:16.8e} {t:16.8e} {p:16.8e}   \n"
        for s, c, t, p in zip(steps, conserved, temperature, potential, strict=True)
    ]
    path.write_text(PROPERTIES_HEAD + "".join(rows))


def ornstein_uhlenbeck(n, columns, sigma, memory_frames, seed):
    """(n, columns) series of standard deviation ``sigma`` that forgets in ``memory_frames``."""
    from scipy.signal import lfilter  # a second, which not every worker has to spend

    decay = np.exp(-1.0 / memory_frames)
    noise = np.random.default_rng(seed).normal(size=(n, columns)) * sigma
    noise[1:] *= np.sqrt(1.0 - decay**2)
    return lfilter([1.0], [1.0, -decay], noise, axis=0)


def free_rotation(n, d_per_frame, seed):
    """(n, 4) quaternions of free rotational diffusion: turns of variance 2D a frame and axis."""
    turns = np.random.default_rng(seed).normal(size=(n - 1, 3)) * np.sqrt(2.0 * d_per_frame)
    rotations = [Rotation.identity()]
    for turn in Rotation.from_rotvec(turns):
        rotations.append(rotations[-1] * turn)
    return Rotation.concatenate(rotations).as_quat()


def turned(positions, atoms, quaternions):
    """(n, N, 3) copies of positions in which ``atoms`` are turned about their centroid."""
    frames = np.repeat(positions[None], len(quaternions), axis=0)
    some = list(atoms)
    centre = positions[some].mean(axis=0)
    matrices = Rotation.from_quat(quaternions).as_matrix()
    frames[:, some] = (positions[some] - centre) @ matrices.swapaxes(-1, -2) + centre
    return frames
