"""Langevin dynamics that makes the frames of a dataset, and continues after a kill.

Every saved state holds positions, momenta and the random generator's state, and a new
calculator is made at each of them. A run that was killed therefore goes through the same numbers
again as one that was not.
"""

from __future__ import annotations

import contextlib
import warnings
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from itertools import combinations
from pathlib import Path
from typing import Any

import numpy as np

from deltaserver.errors import DataError, DeltaserverError, InputError
from deltaserver.training.calculators import (
    calculator_factory,
    fitting_threads,
    molecule,
    nominal_charges,
    nominal_spins,
    reason_of,
)
from deltaserver.training.frames import Floats, FragmentSpec, Ints
from deltaserver.training.journal import Journal, Record, read_journal

# Positions are kept to 1e-8 Å before they are labelled, which is what extended XYZ holds.
POSITION_DECIMALS = 8
RELAX_FORCE_EV_ANG = 0.05
RELAX_STEPS = 300
# Preparation is cheap: a force field is set up anew no more often than this.
PREPARE_INTERVAL = 100


@dataclass(frozen=True)
class Start:
    """A structure that trajectories start from: elements and positions (Å), and its file.

    ``isotopes_u`` are the atoms of another mass than their element's, (atom, u): deuterium.
    """

    numbers: Ints
    positions: Floats
    source: str
    isotopes_u: tuple[tuple[int, float], ...] = ()


@dataclass(frozen=True)
class SamplingPlan:
    """How to sample. Times in fs, temperatures in K, lengths in Å, the wall's k in eV/Å².

    ``trajectories`` is the number per temperature. ``prepare_steps`` run with
    ``prepare_calculator``, a cheap one, before ``equilibrate_steps`` with ``calculator``; neither
    is saved as frames. Beyond ``wall_distance`` between two fragments' centres of mass a
    harmonic force brings them back; None leaves them free.
    """

    calculator: str
    temperatures: tuple[float, ...] = (300.0,)
    trajectories: int = 3
    frames_per_trajectory: int = 100
    interval: int = 25
    equilibrate_steps: int = 1000
    time_step: float = 1.0
    friction: float = 0.01  # 1/fs
    seed: int = 2025
    relax: bool = True
    prepare_calculator: str | None = None
    prepare_steps: int = 0
    wall_distance: float | None = None
    wall_constant: float = 1.0

    def __post_init__(self) -> None:
        """Refuse what no dynamics can be run with."""
        positive = ("trajectories", "frames_per_trajectory", "interval", "time_step", "friction")
        for name in positive:
            if getattr(self, name) <= 0:
                raise InputError(f"{name.replace('_', ' ')} is {getattr(self, name)}; must be > 0")
        if not self.temperatures or min(self.temperatures) <= 0:
            raise InputError(f"temperatures are {self.temperatures}; must be > 0 K")
        if min(self.equilibrate_steps, self.prepare_steps) < 0:
            raise InputError("equilibration and preparation steps must not be negative")
        if self.wall_distance is not None and self.wall_distance <= 0:
            raise InputError(f"the wall's distance is {self.wall_distance} Å; must be > 0")

    @property
    def trajectory_temperatures(self) -> tuple[float, ...]:
        """Temperature of each trajectory, in K."""
        return tuple(t for t in self.temperatures for _ in range(self.trajectories))

    @property
    def n_frames(self) -> int:
        """Number of frames of all trajectories together."""
        return len(self.trajectory_temperatures) * self.frames_per_trajectory

    def describe(self) -> Record:
        """Return the plan as plain YAML and JSON types, for a dataset's record."""
        return {**asdict(self), "temperatures": list(self.temperatures)}


@dataclass(frozen=True)
class Frame:
    """One sampled structure: positions in Å, where it comes from, in what state it was."""

    trajectory: int
    step: int
    positions: Floats
    temperature: float


class FragmentWall:
    """Pulls two fragments together while their centres of mass are further apart than allowed.

    An ASE constraint in the manner of ``ase.constraints.Hookean``: its energy ½k(R − R_max)²
    drives the dynamics and is in no label.
    """

    def __init__(
        self, fragments: tuple[FragmentSpec, ...], distance: float, constant: float
    ) -> None:
        self.groups = [np.array(fragment.atoms) for fragment in fragments]
        self.distance, self.constant = distance, constant

    def adjust_positions(self, atoms: Any, new: Floats) -> None:
        """Leave positions alone: ASE asks every constraint."""

    def adjust_momenta(self, atoms: Any, momenta: Floats) -> None:
        """Leave momenta alone: ASE asks every constraint."""

    def get_removed_dof(self, atoms: Any) -> int:
        """Return 0: a wall takes no degree of freedom away."""
        return 0

    def adjust_forces(self, atoms: Any, forces: Floats) -> None:
        """Add the wall's forces (eV/Å) to ``forces``, spread over each fragment by mass."""
        masses = atoms.get_masses()
        for first, second, overlap, direction in self._overlaps(atoms):
            force = self.constant * overlap * direction
            for group, sign in ((first, 1.0), (second, -1.0)):
                share = masses[group] / masses[group].sum()
                forces[group] += sign * share[:, None] * force

    def adjust_potential_energy(self, atoms: Any) -> float:
        """Return the wall's energy in eV."""
        return sum(0.5 * self.constant * o**2 for _, _, o, _ in self._overlaps(atoms))

    def _overlaps(self, atoms: Any) -> list[tuple[Ints, Ints, float, Floats]]:
        masses, positions = atoms.get_masses(), atoms.positions
        beyond = []
        for first, second in combinations(self.groups, 2):
            centres = [np.average(positions[g], axis=0, weights=masses[g]) for g in (first, second)]
            separation = centres[1] - centres[0]
            distance = float(np.linalg.norm(separation))
            if distance > self.distance:
                beyond.append((first, second, distance - self.distance, separation / distance))
        return beyond


def centre_distance(start: Start, fragments: tuple[FragmentSpec, ...]) -> float:
    """Return the largest distance between two fragments' centres of mass, in Å; 0 for one."""
    charges = nominal_charges(len(start.numbers), fragments)
    atoms = molecule(start.numbers, start.positions, charges)
    centres = [atoms[list(fragment.atoms)].get_center_of_mass() for fragment in fragments]
    return max((float(np.linalg.norm(a - b)) for a, b in combinations(centres, 2)), default=0.0)


def read_frames(journal: Path) -> list[Frame]:
    """Return every saved frame of a sampling journal by trajectory, equilibration left out."""
    frames = [
        Frame(r["trajectory"], r["step"], np.array(r["positions"]), r["temperature"])
        for r in read_journal(journal)
        if r["phase"] == "frame"
    ]
    return sorted(frames, key=lambda frame: (frame.trajectory, frame.step))


def sample(
    plan: SamplingPlan,
    starts: list[Start],
    fragments: tuple[FragmentSpec, ...],
    journal_path: Path,
    on_frame: Callable[[Frame], None] = lambda frame: None,
    spin: int | None = None,
) -> list[Frame]:
    """Run every trajectory of ``plan`` that is not finished; return all frames.

    Trajectory k starts from structure k modulo their number. ``spin``: unpaired electrons of the
    complex, if not those of all fragments.
    """
    last: dict[int, Record] = {}
    for record in read_journal(journal_path):
        last[record["trajectory"]] = record
    with Journal(journal_path) as journal:
        for index, temperature in enumerate(plan.trajectory_temperatures):
            start = starts[index % len(starts)]
            run = _Trajectory(plan, start, fragments, index, temperature, spin)
            run.advance(last.get(index), journal, on_frame)
    return read_frames(journal_path)


class _Trajectory:
    """One Langevin trajectory: relax, prepare, equilibrate, save frames."""

    def __init__(
        self,
        plan: SamplingPlan,
        start: Start,
        fragments: tuple[FragmentSpec, ...],
        index: int,
        temperature: float,
        spin: int | None,
    ) -> None:
        self.plan, self.index, self.temperature = plan, index, temperature
        charges = nominal_charges(len(start.numbers), fragments)
        self.rng = np.random.default_rng([plan.seed, index])
        spins = nominal_spins(len(start.numbers), fragments, spin)
        self.atoms = molecule(start.numbers, start.positions, charges, spins)
        masses = self.atoms.get_masses()
        for atom, mass in start.isotopes_u:
            masses[atom] = mass
        if start.isotopes_u:
            self.atoms.set_masses(masses)
        self.reference = self.atoms.copy()
        if plan.wall_distance is not None:
            wall = FragmentWall(fragments, plan.wall_distance, plan.wall_constant)
            self.atoms.set_constraint(wall)
        self.total_steps = (
            plan.prepare_steps + plan.equilibrate_steps + plan.interval * plan.frames_per_trajectory
        )

    def advance(
        self, last: Record | None, journal: Journal, on_frame: Callable[[Frame], None]
    ) -> None:
        """Continue behind ``last``, or from the start, until the last frame is saved."""
        if last is None:
            self._thermalise()
            last = self._state(0)
            journal.append(last)
        self._restore(last)
        step = int(last["step"])
        while step < self.total_steps:
            step += self._run_to_next_state(step)
            record = self._state(step)
            self._restore(record)  # the rounded positions are the trajectory's
            journal.append(record)
            if record["phase"] == "frame":
                on_frame(
                    Frame(self.index, step, np.array(record["positions"]), record["temperature"])
                )

    def _thermalise(self) -> None:
        from ase import units
        from ase.optimize import FIRE

        if self.plan.relax:
            self.atoms.calc = self._new_calculator(0)
            with self._one_line("relaxing the start structure"), self._fitting_threads():
                FIRE(self.atoms, logfile=None).run(fmax=RELAX_FORCE_EV_ANG, steps=RELAX_STEPS)
        # Maxwell and Boltzmann in one line: ASE has renamed its function for it.
        spread = np.sqrt(self.atoms.get_masses() * units.kB * self.temperature)[:, None]
        self.atoms.set_momenta(self.rng.standard_normal((len(spread), 3)) * spread)

    def _run_to_next_state(self, step: int) -> int:
        from ase import units
        from ase.md.langevin import Langevin

        plan = self.plan
        boundaries = (plan.prepare_steps, plan.prepare_steps + plan.equilibrate_steps)
        interval = PREPARE_INTERVAL if step < plan.prepare_steps else plan.interval
        n_steps = min([interval] + [b - step for b in boundaries if b > step])
        self.atoms.calc = self._new_calculator(step)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", FutureWarning)
            dynamics = Langevin(
                self.atoms,
                plan.time_step * units.fs,
                temperature_K=self.temperature,
                friction=plan.friction / units.fs,
                fixcm=False,
                rng=self.rng,
            )
            with self._one_line(f"after step {step}"), self._fitting_threads():
                dynamics.run(n_steps)
        if not np.isfinite(self.atoms.positions).all():
            raise DataError(
                f"trajectory {self.index}: positions are not finite at step {step + n_steps}; "
                "use a shorter --time-step"
            )
        return n_steps

    def _fitting_threads(self) -> contextlib.AbstractContextManager[Any]:
        return fitting_threads(len(self.atoms))

    @contextlib.contextmanager
    def _one_line(self, where: str) -> Iterator[None]:
        try:
            yield
        except DeltaserverError:
            raise
        except Exception as error:  # calculators raise what they like when an SCF fails
            raise DataError(
                f"trajectory {self.index}, {where}: {reason_of(error)}; a shorter --time-step, a "
                "closer --wall or another --calculator may help"
            ) from error

    def _new_calculator(self, step: int) -> Any:
        name = self.plan.calculator
        if step < self.plan.prepare_steps and self.plan.prepare_calculator:
            name = self.plan.prepare_calculator
        # A force field takes its bonds from the start structure, never from a distorted one.
        return calculator_factory(name)(self.reference)

    def _phase(self, step: int) -> str:
        if step <= self.plan.prepare_steps:
            return "prepare"
        if step <= self.plan.prepare_steps + self.plan.equilibrate_steps:
            return "equilibrate"
        return "frame"

    def _state(self, step: int) -> Record:
        return {
            "trajectory": self.index,
            "step": step,
            "phase": self._phase(step),
            "temperature": self.atoms.get_temperature(),
            "positions": self.atoms.positions.round(POSITION_DECIMALS).tolist(),
            "momenta": self.atoms.get_momenta().tolist(),
            "rng": self.rng.bit_generator.state,
        }

    def _restore(self, record: Record) -> None:
        self.atoms.set_positions(np.array(record["positions"]), apply_constraint=False)
        self.atoms.set_momenta(np.array(record["momenta"]), apply_constraint=False)
        self.rng.bit_generator.state = record["rng"]
