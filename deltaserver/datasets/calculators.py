"""ASE calculators by name: what labels frames and what drives the sampling.

Names are methods (``GFN2-xTB``, ``GFN-FF``, ``PBE-D4/def2-SVP``; ``DF-PBE0-D4/def2-TZVP`` with
density fitting), ``module:factory`` import paths of any ASE calculator, or the directory of a Δ
model. A molecule's charge and unpaired electrons travel in ASE's initial charges and magnetic
moments, and calculators that want them elsewhere are given them here.
"""

from __future__ import annotations

import atexit
import contextlib
import functools
import gc
import importlib
import importlib.metadata
import importlib.util
import os
import re
import sys
import tempfile
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np

from deltaserver.arrays import Floats, Ints
from deltaserver.datasets.frames import FragmentSpec
from deltaserver.errors import DataError, InputError, MissingExtraError
from deltaserver.model.directories import MANIFEST_NAME, model_directory

XTB_METHODS = {"gfn2-xtb": "GFN2-xTB", "gfn1-xtb": "GFN1-xTB", "gfn-ff": "GFNFF"}
TBLITE_PREFIX = "tblite:"
DFT_PATTERN = re.compile(
    r"(?P<fitted>DF-)?(?P<xc>[A-Za-z0-9]+)(-(?P<disp>D3BJ|D4))?/(?P<basis>[\w+*()-]+)", re.I
)
# xtb's and tblite's own factor on SCF thresholds is 1, good enough to sample with. At 0.5 the
# noise of a label's forces is about 2e-4 kcal/mol/Å; 0.1 would be 1e-5, at 1.5 times the cost.
LABEL_ACCURACY = 0.5
HAS_ACCURACY = {"xtb", "tblite"}
DFT_ENERGY_TOLERANCE_HARTREE = 1e-9
DFT_GRID_LEVEL = 3

# Up to so many atoms threads wait for each other longer than they compute: libxtb takes 350 ms for
# a step of water with eight threads, 6 ms with one.
SMALL_MOLECULE_ATOMS = 60
THREADS_VARIABLE = "OMP_NUM_THREADS"

CalculatorFactory = Callable[[Any], Any]


@functools.lru_cache(maxsize=8)  # a model directory is loaded once
def calculator_factory(name: str) -> CalculatorFactory:
    """Return a function that gives a new ASE calculator for an ``ase.Atoms`` object.

    Raises:
        InputError: no calculator has this name, or its import path leads nowhere.
        MissingExtraError: the program behind it is not installed.
    """
    lower = name.strip().lower()
    if lower in XTB_METHODS:
        return _xtb(XTB_METHODS[lower])
    if lower.startswith(TBLITE_PREFIX):
        return _tblite(name.strip()[len(TBLITE_PREFIX) :])
    if (directory := model_directory(name)).joinpath(MANIFEST_NAME).is_file():
        return _delta_model(directory)
    if ":" in name:
        return _import_path(name)
    if match := DFT_PATTERN.fullmatch(name.strip()):
        return _pyscf(match["xc"], match["disp"], match["basis"], bool(match["fitted"]))
    raise InputError(
        f"calculator {name!r} is not known; use GFN2-xTB, GFN1-xTB, GFN-FF, tblite:GFN2-xTB, "
        "PBE-D4/def2-SVP or such, package.module:Factory, or a model directory"
    )


def evaluate(
    factory: CalculatorFactory,
    numbers: Ints,
    positions: Floats,
    charges: Ints,
    spins: Ints | None = None,
) -> tuple[float, Floats]:
    """Return the energy (eV) and forces (eV/Å) of one molecule from a new calculator.

    New, because what a calculator remembers of the molecule before would enter the label.

    Raises:
        ArithmeticError: the calculator returned a number that is not finite.
    """
    atoms = molecule(numbers, positions, charges, spins)
    atoms.calc = factory(atoms)
    programs = {kind.__module__.split(".")[0] for kind in type(atoms.calc).__mro__}
    if programs & HAS_ACCURACY:
        atoms.calc.set(accuracy=LABEL_ACCURACY)
    # Forces first: PySCF's calculator would run a second SCF for them.
    with fitting_threads(len(numbers)):
        forces: Floats = np.asarray(atoms.get_forces(), dtype=np.float64)
        energy = float(atoms.get_potential_energy())
    if not (np.isfinite(energy) and np.isfinite(forces).all()):
        raise ArithmeticError("the calculator returned a number that is not finite")
    return energy, forces


def fitting_threads(n_atoms: int) -> contextlib.AbstractContextManager[Any]:
    """Hold the programs behind a calculator to one thread for small molecules.

    Where the user has set ``OMP_NUM_THREADS`` that holds. The variable itself would come too late:
    a library reads it when it is loaded.
    """
    if n_atoms > SMALL_MOLECULE_ATOMS or os.environ.get(THREADS_VARIABLE):
        return contextlib.nullcontext()
    controller = _thread_pools(len(sys.modules))
    return controller.limit(limits=1) if controller else contextlib.nullcontext()


@functools.lru_cache(maxsize=1)
def _thread_pools(n_modules: int) -> Any:
    """Find the thread pools of all libraries; again only where a module has been imported since.

    To look for them takes as long as a small label.
    """
    try:
        import threadpoolctl
    except ImportError:
        return None
    return threadpoolctl.ThreadpoolController()


def molecule(numbers: Ints, positions: Floats, charges: Ints, spins: Ints | None = None) -> Any:
    """Return ``ase.Atoms`` with initial ``charges`` (e) and unpaired electrons, one per atom."""
    try:
        from ase import Atoms
    except ImportError:
        raise MissingExtraError("ASE", "train") from None
    return Atoms(numbers=numbers, positions=positions, charges=charges, magmoms=spins)


def nominal_spins(
    n_atoms: int, fragments: tuple[FragmentSpec, ...], of_complex: int | None = None
) -> Ints:
    """Return each fragment's unpaired electrons on its first atom, 0 elsewhere.

    If ``of_complex`` is given, so many on the first atom: spins of fragments need not be parallel.
    """
    spins = np.zeros(n_atoms, dtype=np.int64)
    if of_complex is not None:
        spins[0] = of_complex
        return spins
    for fragment in fragments:
        spins[fragment.atoms[0]] = fragment.spin
    return spins


def check_spins(
    calculator: str, numbers: Ints, fragments: tuple[FragmentSpec, ...], of_complex: int | None
) -> None:
    """Refuse unpaired electrons that a molecule's electrons do not allow.

    Force fields have no electrons; what a calculator of the user's has is not known.

    Raises:
        InputError: naming the fragment, its electrons and what is unpaired.
    """
    name = calculator.strip().lower()
    is_quantum = name in ("gfn1-xtb", "gfn2-xtb") or name.startswith(TBLITE_PREFIX)
    if not (is_quantum or DFT_PATTERN.fullmatch(calculator.strip())):
        return
    charge = sum(fragment.charge for fragment in fragments)
    together = sum(fragment.spin for fragment in fragments)
    parts = [(f"fragment {f.name}", numbers[list(f.atoms)], f.charge, f.spin) for f in fragments]
    parts.append(("the complex", numbers, charge, together if of_complex is None else of_complex))
    for what, z, e, spin in parts:
        electrons = int(z.sum()) - e
        if (electrons - spin) % 2 or spin > electrons:
            raise InputError(
                f"{what} has {electrons} electrons, of which {spin} cannot be unpaired; state "
                "charge and unpaired electrons: --fragment NAME:ATOMS:CHARGE:SPIN, as in "
                "oxygen:0-1:0:2, and --spin for the complex; of what is cut --charge NAME:+1"
            )


def nominal_charges(n_atoms: int, fragments: tuple[FragmentSpec, ...]) -> Ints:
    """Return each fragment's charge (e) on its first atom, 0 elsewhere."""
    charges = np.zeros(n_atoms, dtype=np.int64)
    for fragment in fragments:
        charges[fragment.atoms[0]] = fragment.charge
    return charges


def reason_of(error: BaseException) -> str:
    """Return why a calculator failed, the error beneath it included: there the program speaks."""
    reason = f"{type(error).__name__}: {' '.join(str(error).split())[:300]}"
    beneath = error.__cause__ or error.__context__
    return reason if beneath is None else f"{reason}; {reason_of(beneath)}"


def program_versions(name: str) -> dict[str, str]:
    """Return the versions of the programs behind calculator ``name``, for a dataset's record."""
    lower = name.strip().lower()
    if lower in XTB_METHODS:
        packages = ["xtb" if _has("xtb") else "tblite"]
    elif lower.startswith(TBLITE_PREFIX):
        packages = ["tblite"]
    elif DFT_PATTERN.fullmatch(name.strip()):
        packages = ["pyscf", "pyscf-dispersion"]
    else:
        packages = [re.split(r"[.:]", name)[0]]
    versions = {}
    for package in ["deltaserver", "ase", *packages]:
        with contextlib.suppress(importlib.metadata.PackageNotFoundError, ValueError):
            versions[package] = importlib.metadata.version(package)
    return versions


def _has(package: str) -> bool:
    return importlib.util.find_spec(package) is not None


def _xtb(method: str) -> CalculatorFactory:
    """Return the method in libxtb; where that is missing, in tblite, which has all but GFN-FF.

    xtb has no wheels for Python 3.12 and later. Both agree to what their SCF is converged to.
    """
    if not _has("xtb"):
        if method == "GFNFF":
            raise InputError(
                "GFN-FF needs xtb, which pip has for Python up to 3.11: use that, conda's "
                "xtb-python, or GFN2-xTB"
            )
        if _has("tblite"):
            return _tblite(method)
        raise MissingExtraError("xtb", "train")
    return _gfnff if method == "GFNFF" else lambda atoms: _turned_xtb()(method=method)


@functools.cache
def _turned_xtb() -> Any:
    """Return xtb's calculator, which sees molecules turned.

    Where atoms share an x, y or z libxtb's forces are off by up to 0.2 eV/Å (its issue 986).
    """
    from xtb.ase.calculator import XTB

    turn = np.linalg.qr(np.vander([0.7, 1.9, 3.1]))[0]  # or a mirror image; along no axis of ours

    class Turned(XTB):  # type: ignore[misc]
        implemented_properties = ["energy", "free_energy", "forces", "charges"]

        def calculate(self, atoms: Any = None, *args: Any) -> None:
            turned = atoms.copy()
            turned.positions = atoms.positions @ turn.T
            super().calculate(turned, *args)
            self.atoms = atoms.copy()  # what ASE compares the next structure with
            self.results["forces"] = self.results["forces"] @ turn

    return Turned


def _gfnff(atoms: Any) -> Any:
    from ase.calculators.calculator import Calculator, all_changes
    from xtb.ase.calculator import XTB

    charged = np.flatnonzero(atoms.get_initial_charges())
    if len(charged) > 1:
        raise InputError("GFN-FF takes one charged fragment; use GFN2-xTB for more of them")
    # libxtb gives the whole charge to the fragment of the first atom: put the charged one there.
    order = np.concatenate([charged, np.setdiff1d(np.arange(len(atoms)), charged)])

    def reordered(atoms: Any) -> Any:  # without constraints, whose indices would not fit
        charges = atoms.get_initial_charges()[order]
        spins = atoms.get_initial_magnetic_moments()[order]
        return molecule(atoms.numbers[order], atoms.positions[order], charges, spins)

    inner = XTB(method="GFNFF")
    # The bonds come from the first structure that GFN-FF sees: let it be this one.
    with _scratch_directory(), _silent_stdout():
        inner.calculate(reordered(atoms))

    class OrderedGFNFF(Calculator):  # type: ignore[misc]
        implemented_properties = ["energy", "forces"]

        def calculate(
            self, atoms: Any = None, properties: Any = (), system_changes: Any = all_changes
        ) -> None:
            super().calculate(atoms, properties, system_changes)
            ordered = reordered(self.atoms)
            forces = np.empty((len(order), 3))
            forces[order] = inner.get_forces(ordered)
            self.results = {"energy": inner.get_potential_energy(ordered), "forces": forces}

    return OrderedGFNFF()


def _unpaired(atoms: Any) -> int:
    """Return the number of unpaired electrons, which travels in ASE's initial moments."""
    return round(float(atoms.get_initial_magnetic_moments().sum()))


def _tblite(method: str) -> CalculatorFactory:
    try:
        from tblite.ase import TBLite
    except ImportError:
        raise MissingExtraError("tblite", "tblite") from None
    return lambda atoms: TBLite(
        method=method,
        charge=float(atoms.get_initial_charges().sum()),
        multiplicity=_unpaired(atoms) + 1,
        verbosity=0,
    )


def _pyscf(xc: str, dispersion: str | None, basis: str, fitted: bool) -> CalculatorFactory:
    try:
        from pyscf import dft, gto
        from pyscf.pbc.tools.pyscf_ase import PySCF
    except ImportError:
        raise MissingExtraError("PySCF", "dft") from None

    def make(atoms: Any) -> Any:
        gc.collect()  # calculator and scanner hold each other: megabytes per label otherwise
        charge = round(atoms.get_initial_charges().sum())
        with warnings.catch_warnings():  # of a basis it does not know: an error follows
            warnings.filterwarnings("ignore", "Basis may be available", UserWarning)
            mole = gto.M(
                atom=list(zip(atoms.get_chemical_symbols(), atoms.positions, strict=True)),
                basis=basis,
                charge=charge,
                spin=_unpaired(atoms),
                verbose=0,
            )
        method = dft.KS(mole, xc=xc)
        method.conv_tol = DFT_ENERGY_TOLERANCE_HARTREE
        method.grids.level = DFT_GRID_LEVEL
        if dispersion:
            method.disp = dispersion.lower()
        if fitted:  # PySCF takes the auxiliary basis that belongs to the basis
            method = method.density_fit()
        return PySCF(method=method)

    return make


def _delta_model(directory: Path) -> CalculatorFactory:
    from deltaserver.ase import DeltaCalculator
    from deltaserver.model.composite import CompositeModel

    model = CompositeModel.load(directory)
    return lambda atoms: DeltaCalculator(model)


def _import_path(name: str) -> CalculatorFactory:
    module_name, _, attribute = name.partition(":")
    try:
        factory = getattr(importlib.import_module(module_name), attribute)
    except (ImportError, AttributeError, ValueError) as error:
        raise InputError(f"calculator {name!r} cannot be imported: {error}") from None
    if not callable(factory):
        raise DataError(f"calculator {name!r} is no class or function; expected module:Factory")
    return lambda atoms: factory()


@contextlib.contextmanager
def _scratch_directory() -> Iterator[None]:
    """Work in a directory of its own: GFN-FF writes its topology where it stands."""
    before = Path.cwd()
    with tempfile.TemporaryDirectory() as scratch:
        os.chdir(scratch)
        try:
            yield
        finally:
            os.chdir(before)


@contextlib.contextmanager
def _silent_stdout() -> Iterator[None]:
    """Send the process's standard output nowhere: Fortran writes past ``sys.stdout``."""
    _silence_at_exit()
    sys.stdout.flush()
    saved, nowhere = os.dup(1), os.open(os.devnull, os.O_WRONLY)
    try:
        os.dup2(nowhere, 1)
        yield
    finally:
        os.dup2(saved, 1)
        os.close(saved)
        os.close(nowhere)


@functools.cache
def _silence_at_exit() -> None:
    """Drop what Fortran still has in its buffer; it writes that when the process ends."""

    def silence() -> None:
        sys.stdout.flush()
        os.dup2(os.open(os.devnull, os.O_WRONLY), 1)

    atexit.register(silence)
