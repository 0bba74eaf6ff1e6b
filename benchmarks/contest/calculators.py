"""ASE calculators of all rivals, each as its documentation has it for one thread of a CPU.

``make(name, case, None)`` is of the complex, ``make(name, case, k)`` of its fragment k alone, or
None where the rival has no fragments: a model of one molecule knows only that one.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from ase import Atoms
from ase.calculators.calculator import Calculator, all_changes

from benchmarks.contest.cases import Case
from benchmarks.contest.entries import C60, LABELS, OURS

# sgdml expands its training set by all permutations in memory; its time grows linearly with it.
MOST_BYTES = 1e9
UNIT_NAMES = ("Ang", "kcal/mol")  # of native files of this project


class Evaluated(Calculator):
    """A function of positions (N, 3), Å, to energy and forces, eV, as a calculator."""

    implemented_properties = ["energy", "forces"]

    def __init__(self, evaluate: Callable[[Any], tuple[float, Any]]) -> None:
        super().__init__()
        self.evaluate = evaluate

    def calculate(
        self, atoms: Any = None, properties: Any = (), system_changes: Any = all_changes
    ) -> None:
        super().calculate(atoms, properties, system_changes)
        energy, forces = self.evaluate(self.atoms.positions)
        self.results = {"energy": float(energy), "forces": forces}


@dataclass(frozen=True)
class Piece:
    """What one step consists of: a calculator on some atoms, so many times."""

    calculator: Any
    atoms: Any
    times: float = 1.0


def pieces(name: str, case: Case) -> list[Piece]:
    """Return what is timed."""
    if name == "sgdml-sized":
        return sized(case)
    return [Piece(make(name, case, None), np.arange(len(case.numbers)))]


def make(name: str, case: Case, fragment: int | None) -> Any:
    if name == OURS:
        return ours(case, fragment)
    if name in XTB:
        return xtb(XTB[name], case, fragment)
    if name == "sgdml":
        return sgdml(case, fragment)
    if name == "mbgdml":
        return mbgdml(case, fragment)
    precision = "float64" if name.endswith("double") else "float32"
    return mace(case, precision) if name.startswith("mace") else so3lr(precision)


XTB = {LABELS: "GFN2-xTB", "gfn2-tblite": "tblite:GFN2-xTB", "gfn-ff": "GFN-FF"}


def xtb(method: str, case: Case, fragment: int | None) -> Any:
    from deltaserver.datasets.calculators import calculator_factory

    some = np.arange(len(case.numbers)) if fragment is None else case.fragments[fragment]
    # GFN-FF finds its bonds in this structure.
    return calculator_factory(method)(Atoms(case.numbers[some], case.start[some]))


def ours(case: Case, fragment: int | None) -> Any:
    from deltaserver import CompositeModel
    from deltaserver.ase import DeltaCalculator

    model = CompositeModel.load(case.models, storage="auto")  # as the daemon does
    model.warm_up()
    if fragment is None:
        return DeltaCalculator(model)
    alone = model.fragments[fragment].model

    def evaluate(x: Any) -> tuple[float, Any]:
        result = alone.evaluate(x[None])
        return result.energy[0], result.forces[0]

    return Evaluated(evaluate)


def sgdml(case: Case, fragment: int | None) -> Any:
    """One native model of the whole complex; see ``models.py`` for the benzene dimer's."""
    if fragment is not None:
        return None
    directory = case.models if case.system == C60 else case.output / "sgdml"
    return predictor(native(directory / "full.npz"))


def native(file: Any) -> dict[str, Any]:
    with np.load(file, allow_pickle=False) as arrays:
        model = {name: arrays[name] for name in arrays.files}
    assert (model["r_unit"].item(), model["e_unit"].item()) == UNIT_NAMES
    return model


def predictor(model: dict[str, Any]) -> Any:
    """Return sgdml's predictor, in the chunks that it finds best itself."""
    from ase.units import kcal, mol
    from sgdml.predict import GDMLPredict

    predict = GDMLPredict(model, max_processes=1)
    predict.prepare_parallel(n_bulk=1)

    def evaluate(x: Any) -> tuple[float, Any]:
        energy, forces = predict.predict(x.ravel())
        return energy[0] * kcal / mol, forces.reshape(-1, 3) * kcal / mol

    return Evaluated(evaluate)


def sized(case: Case) -> list[Piece]:
    """Return random native models of our parts' points and permutations.

    Where the expanded training set is too large there are fewer points, and each counts for more.
    """
    from deltaserver import CompositeModel
    from deltaserver.model.descriptor import PairDescriptor
    from deltaserver.model.engines.reference import as_sgdml

    rng, found = np.random.default_rng(0), []
    model = CompositeModel.load(case.models)
    for part in model.parts:
        if part.name == "full":
            continue
        old, pairs = part.trained.parameters, PairDescriptor(len(part.atoms))
        n_points, n_perms = len(old.x), len(old.perms)
        kept = max(1, min(n_points, int(MOST_BYTES / (16 * n_perms * pairs.dim))))
        x = case.start[part.atoms] + rng.normal(scale=0.05, size=(kept, len(part.atoms), 3))
        x = pairs.geometry(x).descriptor
        random = replace(
            old, x=x, a=rng.normal(size=x.shape), linear=None, blocks=None, alphas_energy=None,
            positions=None,
        )  # fmt: skip
        found.append(Piece(predictor(as_sgdml(random)), part.atoms, n_points / kept))
    return found


def mbgdml(case: Case, fragment: int | None) -> Any:
    """One-body and two-body models, both native: benzene's, and a binding without a prior."""
    from ase.units import kcal, mol
    from mbgdml.mbe import mbePredict
    from mbgdml.models import gdmlModel
    from mbgdml.predictors import predict_gdml

    name = "molecule"
    files = [case.models / "benzene1.npz", case.output / "mbgdml" / "binding.npz"]
    orders = files if fragment is None else files[:1]
    models = [gdmlModel(native(f), comp_ids=[name] * (k + 1)) for k, f in enumerate(orders)]
    some = np.arange(len(case.numbers)) if fragment is None else case.fragments[fragment]
    owner = case.owner[some] - case.owner[some].min()
    numbers = case.numbers[some]
    # Not its ASE calculator, which ASE 3.29 refuses (it sets Calculator.name).
    expansion, of = mbePredict(models, predict_gdml), np.array([name] * (owner.max() + 1))

    def evaluate(x: Any) -> tuple[float, Any]:
        energy, forces = expansion.predict(numbers, x, owner, of)
        return energy[0] * kcal / mol, forces[0] * kcal / mol

    return Evaluated(evaluate)


def so3lr(precision: str) -> Any:
    """The pretrained weights of its wheel, with its own cutoffs."""
    import torch
    from so3krates_torch.calculator.so3 import SO3LRCalculator

    torch.set_num_threads(1)
    return SO3LRCalculator(default_dtype=precision, device="cpu")


def mace(case: Case, precision: str) -> Any:
    import torch
    from mace.calculators import MACECalculator

    torch.set_num_threads(1)
    file = case.output / "mace" / f"{case.system}.model"
    return MACECalculator(model_paths=str(file), device="cpu", default_dtype=precision)
