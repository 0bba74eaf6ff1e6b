"""What an i-PI input does with its systems: dynamics or else, and what a step sends us."""

from __future__ import annotations

import math
import re
import xml.etree.ElementTree as ElementTree
from collections.abc import Collection
from pathlib import Path

from deltaserver.bias.settings import PES_NAME
from deltaserver.errors import InputError
from deltaserver.simulate.ipi.plugin import loading
from deltaserver.simulate.ipi.template import read_list
from deltaserver.units import ATOMIC_TIME_FS, PS_FS

DYNAMICS = ("dynamics", "constrained_dynamics")
# May stand beside dynamics, and change neither what is conserved nor how many structures are sent.
HARMLESS = ("t_ramp", "dummy")
# Energy comes and goes: pressure is ramped, a field drives, systems are biased.
NOT_CONSERVED = ("p_ramp", "driven_dynamics")
BIASED = ("metad", "dmd")
# Suzuki-Chin integrators evaluate displaced beads too.
TIME_FS = {"femtosecond": 1.0, "picosecond": PS_FS, "atomic_unit": ATOMIC_TIME_FS}
UNEVEN_INTEGRATORS = ("sc", "scnpt")


def motions(system: ElementTree.Element) -> tuple[str, ...]:
    """Return the kinds of motion of a system, those within ``multi`` one by one."""
    nodes = [node for node in system.iter("motion") if node.find("motion") is None]
    return tuple(node.get("mode", "dynamics").strip() for node in nodes) or ("dummy",)


def is_dynamics(root: ElementTree.Element) -> bool:
    """Tell whether every system moves in time: no minimisation, no band, no displacements."""
    allowed = (*DYNAMICS, *HARMLESS, *NOT_CONSERVED)
    kinds = [motions(system) for system in root.findall("system")]
    return all(set(kind) <= set(allowed) and set(kind) - set(HARMLESS) for kind in kinds)


def is_conserved(root: ElementTree.Element) -> bool:
    """Tell whether i-PI's conserved quantity is one."""
    kinds = {kind for system in root.findall("system") for kind in motions(system)}
    ours = {node.get("name", "").strip() for node in loading(root, PES_NAME)}
    biased = any(
        node.get("mode", "").strip() in BIASED and not set(_biased_by(node)) <= ours
        for node in root.iter("smotion")
    )
    return is_dynamics(root) and not kinds & set(NOT_CONSERVED) and not biased


def _biased_by(node: ElementTree.Element) -> list[str]:
    """Return the force fields whose metadynamics this is; ours tell i-PI what work they do."""
    return read_list(node.findtext("metad/metaff")) or [""]


def is_even(root: ElementTree.Element, served: Collection[str]) -> bool:
    """Tell whether every step sends the forcefields ``served`` equally many structures."""
    integrators = {node.get("mode", "nve").strip() for node in root.iter("dynamics")}
    rotated = {name for rotations in root.iter("ffrotations") for name in _sources(rotations)}
    return (
        is_dynamics(root)
        and not integrators & set(UNEVEN_INTEGRATORS)
        and not rotated & set(served)
    )


def structures_per_step(path: Path, root: ElementTree.Element, served: Collection[str]) -> int:
    """Count the structures that a step sends to the forcefields ``served``.

    Raises:
        InputError: a number of beads is no whole number.
    """
    weights = _evaluations(root, served)
    return sum(_of_system(path, system, weights) for system in root.findall("system")) or 1


def _evaluations(root: ElementTree.Element, served: Collection[str]) -> dict[str, int]:
    """Return how many of those ``served`` answer each forcefield: a committee has several."""
    found: dict[str, int] = {}
    for node in root:
        if node.tag.startswith("ff"):
            found[node.get("name", "").strip()] = sum(name in served for name in _sources(node))
    return found


def _sources(node: ElementTree.Element) -> list[str]:
    """Return the names of what may be ours of a forcefield: sockets and plug-ins."""
    return [
        source.get("name", "").strip()
        for tag in ("ffsocket", "ffdirect")
        for source in node.iter(tag)
    ]


def _of_system(path: Path, system: ElementTree.Element, weights: dict[str, int]) -> int:
    """Count one system's: beads × sockets × inner steps, over its force components."""
    beads = _beads(path, system)
    inner = [int(n) for n in re.findall(r"\d+", system.findtext(".//nmts") or "")] or [1]
    total = 0
    for force in system.findall("forces/force"):
        contracted = count(path, "nbeads", force.get("nbeads", "0"))
        repeats = max(1, _repeats(force, inner)) if _number(force.get("weight", "1")) else 0
        own = min(beads, contracted) if contracted else beads
        total += own * repeats * weights.get(force.get("forcefield", "").strip(), 0)
    return total


def _beads(path: Path, system: ElementTree.Element) -> int:
    nodes = [*system.iter("initialize"), *system.findall("beads")]
    return max((count(path, "nbeads", node.get("nbeads", "1")) for node in nodes), default=1)


def _repeats(force: ElementTree.Element, inner: list[int]) -> int:
    """Return how often a force is evaluated in a step of multiple time stepping."""
    weights = re.findall(r"[-+.\dEe]+", force.findtext("mts_weights") or "") or ["1"]
    repeats, per_level = 0, 1
    for level, weight in enumerate(weights):
        per_level *= inner[level] if level < len(inner) else 1
        repeats = per_level if _number(weight) else repeats
    return repeats


def _number(text: str) -> float:
    try:
        return float(text)
    except ValueError:
        return 1.0  # i-PI will complain


def count(path: Path, what: str, text: str) -> int:
    """Read a whole number of an input, or raise InputError."""
    if not text.strip().isdecimal():
        raise InputError(f"{path}: {what} is {text.strip()!r}; expected a whole number")
    return int(text)


def shortest_step_fs(root: ElementTree.Element) -> float:
    """Return the shortest time step of an input, the innermost of several; 0 if it has none."""
    found = []
    for dynamics in root.iter("dynamics"):
        step = dynamics.find("timestep")
        unit = "" if step is None else step.get("units", "atomic_unit")
        if step is None or unit not in TIME_FS:
            continue
        splits = re.findall(r"\d+", dynamics.findtext("nmts") or "")
        value = float(step.text or 0.0) * TIME_FS[unit]
        found.append(value / math.prod(map(int, splits)))
    return min(found, default=0.0)
