"""Langevin dynamics that makes the frames of a dataset, and continues after a kill.

Every saved state holds positions, momenta and the random generator's state, and a new
calculator is made at each of them. A run that was killed therefore goes through the same numbers
again as one that was not.
"""

from __future__ import annotations

import contextlib
import warnings
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass
from itertools import combinations
from pathlib import Path
from typing import Any

import numpy as np

from deltaserver.arrays import Floats, Ints
from deltaserver.datasets.calculators import (
    calculator_factory,
    fitting_threads,
    molecule,
    nominal_charges,
    nominal_spins,
    reason_of,
)
from deltaserver.datasets.frames import FragmentSpec
from deltaserver.datasets.sampling.restraints import CentreRestraint, FragmentWall
from deltaserver.datasets.sampling.separations import (
    SeparationPlan,
    Window,
    check_two_fragments,
    make_windows,
)
from deltaserver.errors import DataError, DeltaserverError, InputError
from deltaserver.textio.journal import Journal, Record, read_journal

# Positions are kept to 1e-8 Å before they are labelled, which is what extended XYZ holds.
POSITION_DECIMALS = 8
RELAX_FORCE_EV_ANG = 0.05
RELAX_STEPS = 300
# In a window only atoms that are too near are moved apart: more would turn all orientations into
# the few that the fragments like best.
CLASH_FORCE_EV_ANG = 1.0
# Preparation is cheap: a force field is set up anew no more often than this.
PREPARE_INTERVAL = 100
GIVEN_UP = "given up"  # the phase of a window whose calculator has failed
LEAST_TRIED = 4  # windows, before it is an error that most of them fail


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
    harmonic force brings them back; None leaves them free. ``separations`` are windows that are
    sampled as well, without wall, or alone if ``frames_per_trajectory`` is 0.
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
    separations: SeparationPlan | None = None

    def __post_init__(self) -> None:
        """Refuse what no dynamics can be run with."""
        positive = ["trajectories", "interval", "time_step", "friction"]
        if self.separations is None:
            positive.append("frames_per_trajectory")
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
        """Temperature of each trajectory in the well, in K."""
        return tuple(t for t in self.temperatures for _ in range(self.trajectories))

    @property
    def n_frames(self) -> int:
        """Number of frames of all trajectories together."""
        apart = self.separations.n_frames if self.separations else 0
        return len(self.trajectory_temperatures) * self.frames_per_trajectory + apart

    def describe(self) -> Record:
        """Return the plan as plain YAML and JSON types, for a dataset's record."""
        return {**asdict(self), "temperatures": list(self.temperatures)}

    @classmethod
    def from_record(cls, record: Record) -> SamplingPlan:
        """Return the plan that :meth:`describe` described."""
        apart = record.get("separations")
        return cls(
            **{
                **record,
                "temperatures": tuple(record["temperatures"]),
                "separations": apart and SeparationPlan(**apart),
            }
        )


@dataclass(frozen=True)
class Run:
    """One trajectory to run: its number, temperature (K), start, frames; its window, if any."""

    index: int
    temperature: float
    start: Start
    n_frames: int
    window: Window | None = None


@dataclass(frozen=True)
class Frame:
    """One sampled structure: positions in Å, where it comes from, in what state it was."""

    trajectory: int
    step: int
    positions: Floats
    temperature: float


def centre_distance(start: Start, fragments: tuple[FragmentSpec, ...]) -> float:
    """Return the largest distance between two fragments' centres of mass, in Å; 0 for one."""
    charges = nominal_charges(len(start.numbers), fragments)
    atoms = molecule(start.numbers, start.positions, charges)
    centres = [atoms[list(fragment.atoms)].get_center_of_mass() for fragment in fragments]
    return max((float(np.linalg.norm(a - b)) for a, b in combinations(centres, 2)), default=0.0)


def runs_of(
    plan: SamplingPlan, starts: Sequence[Start], fragments: tuple[FragmentSpec, ...]
) -> list[Run]:
    """Return every trajectory of ``plan``; number k in the well starts from structure k modulo.

    Those in windows follow, numbered behind all in the well even where these have no frames yet:
    neither changes its number when the other is added. Orientation o is of structure o modulo,
    and the temperatures take turns along the separation.
    """
    in_well = plan.trajectory_temperatures
    runs = [
        Run(k, temperature, starts[k % len(starts)], plan.frames_per_trajectory)
        for k, temperature in enumerate(in_well)
        if plan.frames_per_trajectory
    ]
    apart = plan.separations
    if apart is None:
        return runs
    check_two_fragments(fragments)
    for o in range(apart.orientations):
        start = starts[o % len(starts)]
        structure = (start.positions, _atoms_of(start, fragments, None).get_masses())
        windows = make_windows(apart, o, plan.seed, structure, fragments)
        for w, window in enumerate(windows):
            index = len(in_well) + o * apart.windows + w
            temperature = plan.temperatures[(o + w) % len(plan.temperatures)]
            runs.append(Run(index, temperature, start, apart.frames_per_window, window))
    return runs


def _atoms_of(start: Start, fragments: tuple[FragmentSpec, ...], spin: int | None) -> Any:
    """Return a start as ``ase.Atoms`` with charges, unpaired electrons and the isotopes' masses."""
    charges = nominal_charges(len(start.numbers), fragments)
    spins = nominal_spins(len(start.numbers), fragments, spin)
    atoms = molecule(start.numbers, start.positions, charges, spins)
    masses = atoms.get_masses()
    for atom, mass in start.isotopes_u:
        masses[atom] = mass
    if start.isotopes_u:
        atoms.set_masses(masses)
    return atoms


class CalculatorFailedError(DataError):
    """A calculator gave up within a trajectory, as where an SCF does not converge."""


def given_up(journal: Path) -> dict[int, str]:
    """Return the windows of a sampling journal that a calculator has failed in, with its reason."""
    return {r["trajectory"]: r["reason"] for r in read_journal(journal) if r["phase"] == GIVEN_UP}


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

    A window in which the calculator fails ends there, and is not tried again: some of many begin
    where no SCF converges. In the well it is an error.

    ``spin``: unpaired electrons of the complex, if not those of all fragments.

    Raises:
        CalculatorFailedError: the calculator fails in the well, or in most of the windows.
    """
    last: dict[int, Record] = {}
    for record in read_journal(journal_path):
        last[record["trajectory"]] = record
    tried = failed = 0
    with Journal(journal_path) as journal:
        for run in runs_of(plan, starts, fragments):
            state = last.get(run.index)
            tried += run.window is not None
            if state and state["phase"] == GIVEN_UP:
                failed += 1
                continue
            try:
                _Trajectory(plan, run, fragments, spin).advance(state, journal, on_frame)
            except CalculatorFailedError as error:
                failed += 1
                if run.window is None or 2 * failed > tried >= LEAST_TRIED:
                    raise
                journal.append(
                    {"trajectory": run.index, "step": 0, "phase": GIVEN_UP, "reason": str(error)}
                )
    return read_frames(journal_path)


class _Trajectory:
    """One Langevin trajectory: relax, prepare, equilibrate, save frames."""

    def __init__(
        self,
        plan: SamplingPlan,
        run: Run,
        fragments: tuple[FragmentSpec, ...],
        spin: int | None,
    ) -> None:
        self.plan, self.run, self.index = plan, run, run.index
        self.temperature = run.temperature
        self.rng = np.random.default_rng([plan.seed, run.index])
        self.atoms = _atoms_of(run.start, fragments, spin)
        self.reference = self.atoms.copy()
        if run.window is not None:
            window = run.window
            self.atoms.positions = window.positions
            self.atoms.set_constraint(
                CentreRestraint(fragments, window.centre_distance, window.spring)
            )
        elif plan.wall_distance is not None:
            wall = FragmentWall(fragments, plan.wall_distance, plan.wall_constant)
            self.atoms.set_constraint(wall)
        self.total_steps = (
            plan.prepare_steps + plan.equilibrate_steps + plan.interval * run.n_frames
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
            fmax = CLASH_FORCE_EV_ANG if self.run.window else RELAX_FORCE_EV_ANG
            with self._one_line("relaxing the start structure"), self._fitting_threads():
                FIRE(self.atoms, logfile=None).run(fmax=fmax, steps=RELAX_STEPS)
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
            raise CalculatorFailedError(
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
