"""What lies in the directory of a run: trajectories, properties and the log, and their settings.

A directory with i-PI's input is a run; one whose sub-directories are runs is a set of runs, such
as a temperature sweep. ``run.json``, where there is one, tells the models and how the run ended.
"""

from __future__ import annotations

import json
import re
import xml.etree.ElementTree as ElementTree
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from deltaserver.bias.settings import PES_NAME, Bias, split_parameters
from deltaserver.errors import DataError, InputError, UnitError
from deltaserver.units import from_ipi

RUN_FILE = "run.json"
INPUT_NAME = "input.xml"
MAX_DEPTH = 3
POSITIONS = ("positions", "x_centroid")
BACKUP = re.compile(r"#(?P<name>.+)#(?P<number>\d+)#\Z")
PACKED = re.compile(r"\.(gz|bz2|xz)\Z")


@dataclass(frozen=True)
class Output:
    """A trajectory that an i-PI input asks for: the positions of beads, or their centroids."""

    name: str
    is_centroid: bool = False
    stride: int = 1

    def __str__(self) -> str:
        """Say what it is."""
        what = "the centroids" if self.is_centroid else "the positions"
        return f"{what} in {self.name!r}, every {self.stride} steps, are"

    def pattern(self, prefix: str) -> re.Pattern[str]:
        """Return what its files' names are like; i-PI numbers beads, and no centroids."""
        bead = "(?P<bead>(?!))?" if self.is_centroid else r"_(?P<bead>\d+)"
        return re.compile(
            rf"(?:(?P<system>.+)_)?{re.escape(prefix)}\.{re.escape(self.name)}{bead}"
            r"\.(?:xyz|extxyz|pdb)\Z"
        )


@dataclass(frozen=True)
class Settings:
    """What an i-PI input says of a run; None where it says nothing that we can read."""

    prefix: str
    positions: tuple[Output, ...]
    properties: tuple[str, ...]
    timestep_fs: float | None
    temperatures_k: dict[str, float]  # by the systems' prefixes
    ensemble: str  # the dynamics' mode: nvt, nve, …
    fixed_centre: bool
    n_beads: int
    is_exchange: bool = False  # replicas swap temperatures, or the temperature is ramped
    bias: Bias | None = None
    systems: frozenset[str] | None = None  # their prefixes; None: a template makes them

    def has(self, system: str, bead: int) -> bool:
        """Whether a file of a system's bead is of this run: others are of one before it there."""
        known = self.systems is None or system in self.systems
        return known and (self.n_beads < 1 or bead < self.n_beads)


@dataclass(frozen=True)
class Run:
    """One system of a run: where its files are and what is known of them.

    ``beads`` holds for every bead the pieces of its trajectory in the order of writing.
    """

    label: str
    group: str
    directory: Path
    beads: tuple[tuple[Path, ...], ...]
    properties: tuple[Path, ...] = ()
    log: Path | None = None
    models: Path | None = None
    component: str = "total"
    temperature_k: float | None = None
    timestep_fs: float | None = None
    ensemble: str = "nvt"
    fixed_centre: bool = True
    status: str = ""
    reason: str = ""
    is_exchange: bool = False  # temperatures change along the trajectory
    remarks: tuple[str, ...] = ()  # on which of several outputs is read
    bias: Bias | None = None
    n_systems: int = 1  # that one log is of

    @property
    def blew_up(self) -> bool:
        """Whether its record says that it did."""
        return self.status == "blown up"

    @property
    def fate(self) -> str:
        """How it ended, where its record says anything but that it finished."""
        if self.status in ("", "finished"):
            return ""
        return f"{self.status}: {self.reason}" if self.reason else self.status


def find_runs(paths: list[Path]) -> list[Run]:
    """Return the runs in directories; trajectory files given by themselves are one more run.

    Raises:
        DataError: nothing there, or a directory without any run.
    """
    runs: list[Run] = []
    files = []
    for path in paths:
        if path.is_dir():
            found = [run for directory in _run_directories(path) for run in read_run(directory)]
            if not found:
                raise DataError(
                    f"{path}: no run in it; expected a directory that deltaserver simulate has "
                    f"written, with {INPUT_NAME} and a trajectory of positions"
                )
            runs += found
        elif path.is_file():
            files.append(path)
        else:
            raise DataError(f"{path}: no such file or directory")
    if files:
        runs.append(Run(files[0].name, "", files[0].parent, (tuple(files),)))
    return _told_apart(runs)


def _told_apart(runs: list[Run]) -> list[Run]:
    """Name the runs of several sweeps by these as well, as two of them have a 300K each."""
    labels = [run.label for run in runs]
    if len(set(labels)) == len(labels):
        return runs
    return [replace(run, label=f"{run.group}/{run.label}") for run in runs]


def _run_directories(path: Path, depth: int = 0) -> Iterator[Path]:
    """Yield the directory if it is a run's, else those below it in the order of their numbers."""
    if _input_of(path):
        yield path
        return
    if depth < MAX_DEPTH:
        for below in sorted((p for p in path.iterdir() if p.is_dir()), key=natural):
            yield from _run_directories(below, depth + 1)


def natural(path: Path) -> list[tuple[int, float, str]]:
    """Sort key under which 50K comes before 300K."""
    words = re.findall(r"\d+\.?\d*|\D+", path.name)
    return [(0, float(w), "") if w[0].isdigit() else (1, 0.0, w) for w in words]


def _input_of(directory: Path) -> Path | None:
    """Return i-PI's input in a directory: ours, or the only other one."""
    if (directory / INPUT_NAME).is_file():
        return directory / INPUT_NAME
    inputs = [p for p in sorted(directory.glob("*.xml")) if b"<simulation" in _head(p)]
    return inputs[0] if len(inputs) == 1 else None


def _head(path: Path) -> bytes:
    with path.open("rb") as file:
        return file.read(4096)


def read_run(directory: Path) -> list[Run]:
    """Return the run in a directory, one entry a system.

    Raises:
        DataError: the input cannot be read.
    """
    path = _input_of(directory)
    if path is None:
        return []
    settings = read_settings(path)
    record = _record(directory)
    logs = sorted(directory.glob("*.jsonl"))
    log = logs[0] if logs else None
    runs = []
    trajectories = _trajectories(directory, settings)
    for system, (beads, remarks) in trajectories.items():
        name = directory.resolve().name
        runs.append(
            Run(
                label=f"{name} {system}".strip(),
                group=directory.resolve().parent.name,
                directory=directory,
                beads=beads,
                properties=_properties(directory, settings, system),
                log=log,
                models=_models(record, log),
                component=str(record.get("component", "total")),
                temperature_k=_temperature(settings, system),
                timestep_fs=settings.timestep_fs,
                ensemble=settings.ensemble,
                fixed_centre=settings.fixed_centre,
                status=str(record.get("status", "")),
                reason=str(record.get("reason") or ""),
                is_exchange=settings.is_exchange,
                remarks=remarks,
                bias=settings.bias,
                n_systems=len(trajectories),
            )
        )
    return runs


def _record(directory: Path) -> dict[str, Any]:
    try:
        data = json.loads((directory / RUN_FILE).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return data if isinstance(data, dict) else {}


def _models(record: dict[str, Any], log: Path | None) -> Path | None:
    """Return the model directory that the record or the log's start names, if it is still there."""
    names = [record.get("models")]
    if log:
        with log.open(encoding="utf-8", errors="replace") as file:
            for line, _ in zip(file, range(20), strict=False):
                try:
                    event = json.loads(line)
                except ValueError:
                    break
                if isinstance(event, dict) and event.get("event") == "loaded":
                    names.append(event.get("directory"))
    for name in names:
        if isinstance(name, str) and Path(name).exists():
            return Path(name)
    return None


# -- i-PI's input ------------------------------------------------------------------------------


def read_settings(path: Path) -> Settings:
    """Read what an analysis needs from an i-PI input or a RESTART file.

    Raises:
        DataError: it cannot be read, is not XML, or is no simulation.
    """
    try:
        root = ElementTree.fromstring(path.read_bytes())
    except (OSError, ElementTree.ParseError) as error:
        raise DataError(f"{path}: not readable as XML ({error})") from error
    if root.tag != "simulation":
        raise DataError(f"{path}: the root is <{root.tag}>; expected <simulation>")
    output = root.find("output")
    output = root if output is None else output
    positions = tuple(
        Output(node.get("filename", "pos"), what == POSITIONS[1], int(node.get("stride", "1")))
        for node in output.findall("trajectory")
        if (what := re.split(r"[{(]", (node.text or ""))[0].strip()) in POSITIONS
    )
    properties = tuple(node.get("filename", "out") for node in output.findall("properties"))
    return Settings(
        prefix=output.get("prefix", "i-pi"),
        positions=positions,
        properties=properties,
        timestep_fs=_quantity(path, root.find(".//timestep"), "time"),
        temperatures_k=_temperatures(path, root),
        ensemble=next((n.get("mode", "nve") for n in root.iter("dynamics")), ""),
        fixed_centre=(root.findtext(".//fixcom") or "True").strip().lower() == "true",
        is_exchange=any(n.get("mode") == "remd" for n in root.iter("smotion"))
        or root.find(".//t_ramp") is not None,
        n_beads=_n_beads(root),
        bias=_bias(path, root),
        systems=_systems(root),
    )


def _n_beads(root: ElementTree.Element) -> int:
    """Return the number of beads; 0 where a file or a template tells it."""
    nodes = (*root.iter("initialize"), *root.iter("beads"))
    told = [text for node in nodes if (text := node.get("nbeads", "").strip()).isdecimal()]
    return max(map(int, told), default=0)


def _systems(root: ElementTree.Element) -> frozenset[str] | None:
    """Return the prefixes of an input's systems; None where it does not list them."""
    if root.find("system_template") is not None:
        return None
    return frozenset(node.get("prefix", "").strip() for node in root.findall("system")) or None


def _bias(path: Path, root: ElementTree.Element) -> Bias | None:
    """Return the bias of ours that acts on a run's systems."""
    for node in root.iter("ffdirect"):
        if Path((node.findtext("pes_path") or "").strip()).name == PES_NAME:
            try:
                return Bias.parse(split_parameters(node.findtext("parameters") or ""))
            except InputError as error:
                raise DataError(f"{path}: {error}") from None
    return None


def _temperatures(path: Path, root: ElementTree.Element) -> dict[str, float]:
    found = {}
    for system in root.iter("system"):
        value = _quantity(path, system.find("ensemble/temperature"), "temperature")
        if value is not None:
            found[system.get("prefix", "")] = value
    return found


def _quantity(path: Path, node: ElementTree.Element | None, kind: str) -> float | None:
    """Return a number of the input in our unit; None if it is a placeholder or not there."""
    if node is None:
        return None
    try:
        factor = from_ipi(kind, node.get("units", ""))
    except UnitError as error:
        raise DataError(f"{path}: <{node.tag}>: {error}") from None
    try:
        return float(node.text or "") * factor
    except ValueError:
        return None


def _temperature(settings: Settings, system: str) -> float | None:
    values = settings.temperatures_k
    if system in values:
        return values[system]
    return next(iter(values.values())) if len(set(values.values())) == 1 else None


# -- files -------------------------------------------------------------------------------------


Beads = tuple[tuple[Path, ...], ...]
Pieces = dict[Output, dict[int, list[Path]]]  # of every output the pieces of its beads


def _trajectories(directory: Path, settings: Settings) -> dict[str, tuple[Beads, tuple[str, ...]]]:
    """Return for every system the pieces of its beads, and what is to be told of the choice."""
    outputs = settings.positions or (Output("pos"),)
    found: dict[str, Pieces] = {}
    for path in sorted(directory.iterdir()):
        for output in outputs:
            match = output.pattern(settings.prefix).match(original_name(path))
            if not match or not path.is_file() or not path.stat().st_size:
                continue
            system, bead = match["system"] or "", int(match["bead"] or 0)
            if settings.has(system, bead):
                beads = found.setdefault(system, {}).setdefault(output, {})
                beads.setdefault(bead, []).append(path)
    return {
        system: _chosen(of_system, outputs, settings.n_beads)
        for system, of_system in sorted(
            found.items(), key=lambda item: natural(Path(item[0] or "0"))
        )
    }


def _chosen(
    found: Pieces, outputs: Sequence[Output], n_beads: int
) -> tuple[Beads, tuple[str, ...]]:
    """Choose one output of several: beads before centroids, more beads, more frames."""
    there = [output for output in outputs if output in found]
    best = max(there, key=lambda o: (not o.is_centroid, len(found[o]), -o.stride))
    beads = tuple(tuple(sorted(found[best][k], key=age)) for k in sorted(found[best]))
    remarks = [f"{output} not used; {best}" for output in dict.fromkeys(there) if output != best]
    if best.is_centroid and n_beads > 1:
        remarks.append(
            "only the centroids of the beads are written: they spread less than the positions"
        )
    return beads, tuple(remarks)


def _properties(directory: Path, settings: Settings, system: str) -> tuple[Path, ...]:
    """Return the pieces of the property file with the most to say: the first in the input."""
    for name in settings.properties:
        wanted = f"{system}_" if system else ""
        wanted += f"{settings.prefix}.{name}"
        pieces = [p for p in directory.iterdir() if original_name(p) == wanted]
        if pieces:
            return tuple(sorted(pieces, key=age))
    return ()


def original_name(path: Path) -> str:
    """Return the name a file had before i-PI made it a backup or somebody compressed it."""
    name = PACKED.sub("", path.name)
    match = BACKUP.match(name)
    return match["name"] if match else name


def age(path: Path) -> tuple[int, int]:
    """Sort key: i-PI's backups by their numbers, then the file itself."""
    match = BACKUP.match(PACKED.sub("", path.name))
    return (0, int(match["number"])) if match else (1, 0)
