"""Who takes part in benchmarks/rivals.py, and what each aims at. Only data: every venv reads it."""

from __future__ import annotations

from dataclasses import dataclass

OURS = "deltaserver"
LABELS = "gfn2-xtb"  # what the models of this project are trained on
C60, DIMER = "c60", "benzene_dimer"
SYSTEMS = (DIMER, C60)
TITLES = {DIMER: "Benzene dimer, 24 atoms", C60: "C60@buckycatcher, 148 atoms"}
STAGES = ("errors", "curve", "survival", "speed")
SAME_LABELS = "GFN2-xTB"

# What the worker needs beside the rival itself: our reader of geometries and ASE's dynamics.
WORKER_PACKAGES = ("numpy", "pyyaml", "structlog", "click", "ase")
TORCH = "torch==2.13.0"  # first, and this one: its CPU build is in many places


@dataclass(frozen=True)
class Rival:
    """One row of the table.

    Attributes:
        name: what ``--only`` takes, and the row's key.
        title: what the table calls it.
        level: the level of theory that it aims at.
        package: the distribution whose version is reported.
        environment: of which virtual environment; empty for the one that runs the script.
        packages: what pip installs there, in this order, beside what the worker needs.
        systems: which it can do.
        stages: which make sense for it.
        ps: how long it is run at 400 K, of each system.
    """

    name: str
    title: str
    level: str
    package: str
    environment: str = ""
    packages: tuple[str, ...] = ()
    systems: tuple[str, ...] = SYSTEMS
    stages: tuple[str, ...] = STAGES
    ps: tuple[tuple[str, float], ...] = ((DIMER, 2.0), (C60, 2.0))


SO3LR = (TORCH, "so3krates-torch==0.2.1")
MACE = (TORCH, "mace-torch==0.3.16")
MBGDML = (TORCH, "mbGDML==0.1.1")

RIVALS = (
    Rival(
        OURS, "deltaserver", SAME_LABELS, "deltaserver",
        ps=((DIMER, 20.0), (C60, 10.0)),
    ),
    Rival(LABELS, "GFN2-xTB (xtb)", "itself: the labels", "xtb", ps=((DIMER, 2.0), (C60, 0.1))),
    Rival(
        "gfn2-tblite", "GFN2-xTB (tblite)", "itself: the labels", "tblite",
        stages=("errors", "curve", "speed"),
    ),
    Rival("gfn-ff", "GFN-FF (xtb)", "B97-3c geometries, frequencies", "xtb"),
    Rival("sgdml", "sgdml, one model", SAME_LABELS, "sgdml"),
    Rival("sgdml-sized", "sgdml, of our M and S", "(time only)", "sgdml", stages=("speed",)),
    Rival("mbgdml", "mbGDML", SAME_LABELS, "mbGDML", "mbgdml", MBGDML, (DIMER,)),
    Rival("so3lr", "SO3LR, float32", "PBE0+MBD", "so3krates-torch", "so3lr", SO3LR),
    Rival(
        "so3lr-double", "SO3LR, float64", "PBE0+MBD", "so3krates-torch", "so3lr", SO3LR,
        stages=("errors", "curve", "speed"),
    ),
    Rival("mace", "MACE, float32", SAME_LABELS, "mace-torch", "mace", MACE, (DIMER,)),
    Rival(
        "mace-double", "MACE, float64", SAME_LABELS, "mace-torch", "mace", MACE, (DIMER,),
        stages=("errors", "curve", "speed"),
    ),
)  # fmt: skip
BY_NAME = {rival.name: rival for rival in RIVALS}
