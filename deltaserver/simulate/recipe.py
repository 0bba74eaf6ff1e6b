"""What is to be simulated, and how. No IO."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal

import numpy as np

from deltaserver.arrays import Floats
from deltaserver.bias.settings import Bias
from deltaserver.errors import InputError
from deltaserver.molecules.elements import SYMBOLS

Kind = Literal["nvt", "nve", "npt", "pimd", "remd", "mts", "ramp", "umbrella", "metad"]
KINDS: tuple[Kind, ...] = (
    "nvt", "nve", "npt", "pimd", "remd", "mts", "ramp", "umbrella", "metad",
)  # fmt: skip
BIASED: tuple[Kind, ...] = ("umbrella", "metad")  # dynamics as in nvt, or as in mts
SPLIT: tuple[Kind, ...] = ("mts", *BIASED)  # may have multiple time steps
WALLED: tuple[Kind, ...] = ("nvt", *BIASED)  # may have a wall
SIDE_BY_SIDE: tuple[Kind, ...] = ("nvt", "nve", "npt", "mts")  # several runs may share an i-PI
Thermostat = Literal["langevin", "svr", "none"]
THERMOSTATS: tuple[Thermostat, ...] = ("langevin", "svr", "none")
CELL_ROUNDING_ANG = 1e-6
SHORT_RUN_STEPS = 2000  # up to here every step's energies are written
ENERGIES_EVERY_FS = 5.0
# Hydrogens vibrate in some 10 fs, other atoms in 20 and more: a tenth to a sixth of that is safe,
# and beyond a third no integrator is stable.
SAFE_STEP_FS, LONG_STEP_FS, LONG_STEP_OF_HYDROGENS_FS, NO_STEP_FS = 0.5, 3.0, 1.5, 20.0
HOT_K, NO_MATTER_K = 2000.0, 1e5  # molecules come apart; atoms do


@dataclass(frozen=True)
class Recipe:
    """How to simulate.

    Attributes:
        kind: the ensemble or method.
        temperatures_k: one; the replicas' for remd; start and end of a ramp; any number of runs
            side by side.
        timestep_fs: of mts the outer one.
        steps: how many.
        seed: of i-PI's random numbers.
        thermostat: langevin, svr (one global stochastic rescaling, which leaves diffusion alone)
            or none; pimd has PILE-L and nve none, whatever stands here.
        tau_fs: time constant of the thermostat.
        pressure_bar: of npt.
        barostat_tau_fs: time constant of npt's isotropic barostat.
        n_beads: of pimd.
        n_inner: steps of the fragments in each step of the binding, of what is split.
        split: whether the dynamics of a bias are split so too; those of mts always are.
        n_replicas: runs of each temperature side by side in one i-PI, all evaluated in one batch;
            None is a single run.
        swap_every: steps between attempts to exchange, on average, of remd.
        positions_every_fs: between the frames written.
        energies_every: steps between lines of properties and contributions; None: every step in
            a short run, every 5 fs in a longer one.
        checkpoint_every: steps.
        plugin: whether i-PI evaluates the model in its own process, without a socket.
        bias: of umbrella and metad; of nvt at most a wall.
    """

    kind: Kind
    temperatures_k: tuple[float, ...]
    timestep_fs: float = 0.5
    steps: int = 2000
    seed: int = 31415
    thermostat: Thermostat = "langevin"
    tau_fs: float = 100.0
    n_beads: int = 8
    n_inner: int = 2
    split: bool = False
    n_replicas: int | None = None
    swap_every: int = 10
    positions_every_fs: float = 10.0
    energies_every: int | None = None
    checkpoint_every: int = 1000
    pressure_bar: float = 1.0
    barostat_tau_fs: float = 500.0
    plugin: bool = False
    bias: Bias | None = None

    def __post_init__(self) -> None:
        if self.n_replicas is not None and (self.kind not in SIDE_BY_SIDE or self.bias):
            kinds = ", ".join(SIDE_BY_SIDE)
            raise InputError(f"--replicas: only with --kind {kinds}, and without a wall")
        needed = {"remd": "two or more", "ramp": "two: start and end"}.get(self.kind, "one")
        n = len(self.temperatures_k)
        fits = {"remd": n >= 2, "ramp": n == 2}.get(self.kind, n == 1 or bool(self.n_replicas))
        if not fits:
            raise InputError(f"--kind {self.kind} takes {needed} --temperature; {n} given")
        if not all(0.0 < t <= NO_MATTER_K for t in self.temperatures_k):
            raise InputError("--temperature: expected numbers above 0 K, at most 100000 K")
        if self.inner_step_fs > NO_STEP_FS:
            raise InputError(
                f"--timestep {self.timestep_fs:g}: is in fs, and at most {NO_STEP_FS:g}: no bond "
                f"is followed by longer steps; {SAFE_STEP_FS:g} is safe"
            )
        if self.kind == "npt" and self.thermostat == "none":
            raise InputError("--kind npt needs a thermostat: langevin or svr")
        if self.split and self.kind not in SPLIT:
            raise InputError(f"--inner-steps: only with --kind {', '.join(SPLIT)}")

    @property
    def is_split(self) -> bool:
        """Whether fragments are stepped inside, and the binding and a bias outside."""
        return self.kind == "mts" or self.split

    @property
    def inner_step_fs(self) -> float:
        """The time step of the fragments."""
        return self.timestep_fs / (self.n_inner if self.is_split else 1)

    def notes(self, numbers: Iterable[int]) -> list[str]:
        """Return what a user may not expect of this recipe for atoms of these numbers."""
        found = []
        if told := about_step(self.inner_step_fs, numbers):
            found.append(told)
        if (hottest := max(self.temperatures_k)) > HOT_K:
            found.append(f"at {hottest:g} K molecules come apart")
        if self.positions_every_fs < self.timestep_fs:
            found.append(
                f"--positions-every {self.positions_every_fs:g} is less than a time step: frames "
                f"are written every {self.timestep_fs:g} fs"
            )
        return found

    @property
    def systems_k(self) -> tuple[float, ...]:
        """Temperatures of i-PI's systems, K."""
        at_the_start = self.temperatures_k[:1] if self.kind == "ramp" else self.temperatures_k
        return at_the_start * (self.n_replicas or 1)

    @property
    def positions_stride(self) -> int:
        """Steps between the frames written."""
        return max(1, round(self.positions_every_fs / self.timestep_fs))

    @property
    def energies_stride(self) -> int:
        """Steps between lines of properties and contributions."""
        if self.energies_every is not None:
            return self.energies_every
        if self.steps <= SHORT_RUN_STEPS:
            return 1
        return max(1, round(ENERGIES_EVERY_FS / self.timestep_fs))


def about_step(step_fs: float, numbers: Iterable[int]) -> str:
    """Tell a time step that is long for the atoms of these numbers; empty where it is not."""
    hydrogens = 1 in numbers
    if step_fs <= (LONG_STEP_OF_HYDROGENS_FS if hydrogens else LONG_STEP_FS):
        return ""
    whom = "hydrogens" if hydrogens else "bonds"
    return f"a time step of {step_fs:g} fs is long for {whom}; {SAFE_STEP_FS:g} fs is safe"


@dataclass(frozen=True)
class Subject:
    """What to simulate: the start structure and what its model tells of it.

    Attributes:
        slug: prefix of the output files.
        title: of the model, for the comment at the input's top.
        models: its directory, for the same.
        numbers: atomic numbers, shape (N,).
        positions_ang: Å, shape (N, 3).
        parts: contributions to write, by the name that the daemon's extras give them.
        symbols: of the atoms, ``D`` and ``T`` for isotopes; those of the numbers if none are given.
        cell_ang: lattice vectors in columns, Å, of what repeats; None is a complex in vacuum.
        parameters: of the plug-in, where there is no socket.
        notes: what a user may not expect of the start structure.
    """

    slug: str
    title: str
    models: str
    numbers: Sequence[int]
    positions_ang: Floats
    parts: tuple[str, ...]
    symbols: tuple[str, ...] = ()
    cell_ang: Floats | None = None
    parameters: Mapping[str, str] = field(default_factory=dict)
    notes: tuple[str, ...] = ()

    @property
    def species(self) -> tuple[str, ...]:
        """Symbols of all atoms."""
        return self.symbols or tuple(SYMBOLS[z] for z in self.numbers)

    def __post_init__(self) -> None:
        cell = self.cell_ang
        if cell is not None and np.abs(np.tril(cell, -1)).max() > CELL_ROUNDING_ANG:
            raise InputError(
                "the cell's first vector is not along x, or its second not in the plane of x "
                "and y, as i-PI wants them: turn the structure (in ASE: "
                "atoms.set_cell(atoms.cell.standard_form()[0], scale_atoms=True))"
            )
