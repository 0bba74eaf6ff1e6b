"""Write an i-PI input for a model: what is to be simulated, and how. No IO.

The input is complete in itself: positions, masses and cell stand in it, so that it runs from any
directory and i-PI needs no other file.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal
from xml.sax.saxutils import escape

import numpy as np

from deltaserver.arrays import Floats
from deltaserver.bias.settings import Bias
from deltaserver.errors import InputError
from deltaserver.molecules.elements import SYMBOLS
from deltaserver.simulate.ipi import bias
from deltaserver.simulate.ipi.plugin import PES_PATH, parameters_text
from deltaserver.textio.species import parse_species

Kind = Literal["nvt", "nve", "npt", "pimd", "remd", "mts", "ramp", "umbrella", "metad"]
KINDS: tuple[Kind, ...] = (
    "nvt", "nve", "npt", "pimd", "remd", "mts", "ramp", "umbrella", "metad",
)  # fmt: skip
BIASED: tuple[Kind, ...] = ("umbrella", "metad")  # dynamics as in nvt, or as in mts
SPLIT: tuple[Kind, ...] = ("mts", *BIASED)  # may have multiple time steps
WALLED: tuple[Kind, ...] = ("nvt", *BIASED)  # may have a wall
Thermostat = Literal["langevin", "svr", "none"]
THERMOSTATS: tuple[Thermostat, ...] = ("langevin", "svr", "none")
CELL_ANG = 300.0
CELL_ROUNDING_ANG = 1e-6
INNER, OUTER = "inner", "outer"
SHORT_RUN_STEPS = 2000  # up to here every step's energies are written
ENERGIES_EVERY_FS = 5.0


@dataclass(frozen=True)
class Recipe:
    """How to simulate.

    Attributes:
        kind: the ensemble or method.
        temperatures_k: one; the replicas' for remd; start and end of a ramp.
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
    swap_every: int = 10
    positions_every_fs: float = 10.0
    energies_every: int | None = None
    checkpoint_every: int = 1000
    pressure_bar: float = 1.0
    barostat_tau_fs: float = 500.0
    plugin: bool = False
    bias: Bias | None = None

    def __post_init__(self) -> None:
        needed = {"remd": "two or more", "ramp": "two: start and end"}.get(self.kind, "one")
        n = len(self.temperatures_k)
        if not {"remd": n >= 2, "ramp": n == 2}.get(self.kind, n == 1):
            raise InputError(f"--kind {self.kind} takes {needed} --temperature; {n} given")
        if not all(0.0 < t < float("inf") for t in self.temperatures_k):
            raise InputError("--temperature: expected numbers above 0 K")
        if self.kind == "npt" and self.thermostat == "none":
            raise InputError("--kind npt needs a thermostat: langevin or svr")
        if self.split and self.kind not in SPLIT:
            raise InputError(f"--inner-steps: only with --kind {', '.join(SPLIT)}")

    @property
    def is_split(self) -> bool:
        """Whether fragments are stepped inside, and the binding and a bias outside."""
        return self.kind == "mts" or self.split

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


def render(recipe: Recipe, subject: Subject, address: str = "delta") -> str:
    """Write the i-PI input; ``address`` names its unix socket, or begins the names of two.

    Raises:
        InputError: what is in vacuum has no pressure.
    """
    if recipe.kind == "npt" and subject.cell_ang is None:
        raise InputError("--kind npt needs a model that is periodic: true, and a structure's cell")
    return f"""{_comment(recipe, subject, address)}
<simulation {_attributes(recipe)}>
{_output(recipe, subject)}
  <total_steps>{recipe.steps}</total_steps>
  <prng><seed>{recipe.seed}</seed></prng>
{_forcefields(recipe, subject, address)}{_bias(recipe)}
{_systems(recipe, subject)}
</simulation>
"""


def _bias(recipe: Recipe) -> str:
    """Write the bias's force field, and what tells it of steps where it changes with them."""
    if recipe.bias is None:
        return ""
    lines = ["", bias.forcefield(recipe.bias), *([bias.SMOTION] if recipe.bias.grows else [])]
    return "\n".join(lines)


def socket_names(recipe: Recipe, address: str) -> tuple[str, ...]:
    """Return the names of the unix sockets that an input listens on."""
    return (f"{address}_{INNER}", f"{address}_{OUTER}") if recipe.is_split else (address,)


def _comment(recipe: Recipe, subject: Subject, address: str) -> str:
    kelvin = ", ".join(f"{t:g}" for t in recipe.temperatures_k)
    text = f"""{subject.title}: {recipe.kind}, {kelvin} K, {recipe.timestep_fs:g} fs.
     One command runs it:
         deltaserver simulate FILE.xml -m {subject.models}
     {_by_hand(recipe, subject, address)}"""
    if subject.cell_ang is None:
        text += "\n     i-PI has no open cell: the complex floats in a cell far larger than itself."
    return f"<!-- {text.replace('--', '- -')} -->"  # XML has no -- in comments


def _by_hand(recipe: Recipe, subject: Subject, address: str) -> str:
    if recipe.plugin:
        return "or i-PI alone, where deltaserver is installed:\n         i-pi FILE.xml"
    sockets = " ".join(f"-s unix:{name}" for name in socket_names(recipe, address))
    return f"""or the daemon in one terminal and i-PI in another, in any order:
         deltaserver -m {subject.models} {sockets}
         i-pi FILE.xml"""


def _attributes(recipe: Recipe) -> str:
    """Leave out what costs time in i-PI.

    Threads pay only where several systems wait for their forces. And a state to fall back to is
    kept no more often than energies are written.
    """
    threading = recipe.kind == "remd"
    return f'verbosity="medium" threading="{threading}" safe_stride="{recipe.energies_stride}"'


def _output(recipe: Recipe, subject: Subject) -> str:
    columns = [
        "step", "time{picosecond}", "conserved{electronvolt}", "temperature{kelvin}",
        "potential{electronvolt}", "kinetic_md{electronvolt}",
    ]  # fmt: skip
    if recipe.kind == "pimd":
        columns.append("kinetic_cv{electronvolt}")
    if recipe.kind == "npt":
        columns += ["volume{angstrom3}", "pressure_md{bar}", "density{g/cm3}"]
    if recipe.bias is not None:
        columns.append("ensemble_bias{electronvolt}")
    if recipe.kind in ("remd", "ramp"):
        columns.append("ensemble_temperature{kelvin}")
    every = recipe.energies_stride
    lines = [
        f'  <output prefix="{subject.slug}">',
        f'    <properties stride="{every}" filename="out">[ {", ".join(columns)} ]</properties>',
        f'    <trajectory stride="{recipe.positions_stride}" filename="pos" '
        'cell_units="angstrom">positions{angstrom}</trajectory>',
        *(
            f'    <trajectory stride="{every}" filename="{part}_energy_ev" '
            f'extra_type="{part}_energy_ev">extras</trajectory>'
            for part in subject.parts
        ),
        # Two, one after the other: a kill that cuts one short leaves the other whole.
        f'    <checkpoint stride="{recipe.checkpoint_every}" filename="checkpoint"/>',
        f'    <checkpoint stride="{2 * recipe.checkpoint_every}" filename="checkpoint2"/>',
        "  </output>",
    ]
    return "\n".join(lines)


def _forcefields(recipe: Recipe, subject: Subject, address: str) -> str:
    batch = {"pimd": recipe.n_beads, "remd": len(recipe.temperatures_k)}.get(recipe.kind, 1)
    parts = {INNER: "fragments", OUTER: "binding"} if recipe.is_split else {"delta": None}
    addresses = socket_names(recipe, address)
    return "\n".join(
        _direct(name, batch, subject.parameters, component)
        if recipe.plugin
        else _socket(name, where, batch, component)
        for (name, component), where in zip(parts.items(), addresses, strict=True)
    )


def _direct(name: str, batch: int, known: Mapping[str, str], component: str | None) -> str:
    """Write a force field in i-PI's own process; ``threaded`` it never waits for a full batch."""
    parameters = dict(known) | ({"component": component} if component else {})
    threaded = ' threaded="True"' if batch > 1 else ""
    lines = [
        f'  <ffdirect name="{name}" pbc="false"{threaded}>',
        "    <pes>custom</pes>",
        f"    <pes_path>{escape(str(PES_PATH))}</pes_path>",
        f"    <parameters>{escape(parameters_text(parameters))}</parameters>",
    ]
    if batch > 1:
        lines.append(f"    <batch_size>{batch}</batch_size>")
    return "\n".join([*lines, "  </ffdirect>"])


def _socket(name: str, address: str, batch: int, component: str | None = None) -> str:
    lines = [
        f'  <ffsocket mode="unix" name="{name}" pbc="false">',
        f"    <address>{escape(address)}</address>",
        "    <latency>1e-4</latency>",
        "    <timeout>60</timeout>",
    ]
    if batch > 1:
        lines.append(f"    <batch_size>{batch}</batch_size>")
    if component:
        lines.append(f"    <parameters>{{component:{component}}}</parameters>")
    return "\n".join([*lines, "  </ffsocket>"])


def _systems(recipe: Recipe, subject: Subject) -> str:
    if recipe.kind != "remd":
        return _system(recipe, subject, recipe.temperatures_k[0], "")
    systems = [
        _system(recipe, subject, t, f' prefix="{k}_{t:g}K"')
        for k, t in enumerate(recipe.temperatures_k)
    ]
    exchange = f'  <smotion mode="remd"><remd><stride>{recipe.swap_every}</stride></remd></smotion>'
    return "\n".join([exchange, *systems])


def _system(recipe: Recipe, subject: Subject, kelvin: float, prefix: str) -> str:
    n_beads = recipe.n_beads if recipe.kind == "pimd" else 1
    return f"""  <system{prefix}>
    <initialize nbeads="{n_beads}">
      <velocities mode="thermal" units="kelvin">{kelvin:g}</velocities>
    </initialize>
{_start(subject, n_beads)}
    <forces>
{_forces(recipe)}
    </forces>
    <ensemble>
      <temperature units="kelvin">{kelvin:g}</temperature>{_pressure(recipe)}{_in_ensemble(recipe)}
    </ensemble>
{_motion(recipe)}
  </system>"""


def _pressure(recipe: Recipe) -> str:
    if recipe.kind != "npt":
        return ""
    return f'\n      <pressure units="bar">{recipe.pressure_bar:g}</pressure>'


def _in_ensemble(recipe: Recipe) -> str:
    return "" if recipe.bias is None else f"\n      {bias.IN_ENSEMBLE}"


def _start(subject: Subject, n_beads: int) -> str:
    n_atoms = len(subject.numbers)
    names = ", ".join(subject.species)
    masses = ", ".join(f"{parse_species(symbol).mass_u:g}" for symbol in subject.species)
    rows = [", ".join(f"{value:.8f}" for value in row) for row in subject.positions_ang]
    positions = ",\n        ".join(rows * n_beads)  # every bead starts there
    box = CELL_ANG * np.eye(3) if subject.cell_ang is None else np.triu(subject.cell_ang)
    cell = ", ".join(f"{x:.10g}" for x in box.ravel())
    return f"""    <beads natoms="{n_atoms}" nbeads="{n_beads}">
      <q units="angstrom" shape="({n_beads}, {3 * n_atoms})">[
        {positions} ]</q>
      <m units="dalton" shape="({n_atoms})">[ {masses} ]</m>
      <names shape="({n_atoms})">[ {names} ]</names>
    </beads>
    <cell units="angstrom" shape="(3, 3)">[ {cell} ]</cell>"""


def _forces(recipe: Recipe) -> str:
    if not recipe.is_split:
        return '      <force forcefield="delta"/>'
    return "\n".join(
        f'      <force forcefield="{name}"><mts_weights>{weights}</mts_weights></force>'
        for name, weights in ((OUTER, "[1, 0]"), (INNER, "[0, 1]"))
    )


def _motion(recipe: Recipe) -> str:
    if recipe.kind != "ramp":
        return _dynamics(recipe, "    ")
    start, end = recipe.temperatures_k
    return f"""    <motion mode="multi">
{_dynamics(recipe, "      ")}
      <motion mode="t_ramp">
        <t_ramp>
          <t_start units="kelvin">{start:g}</t_start>
          <t_end units="kelvin">{end:g}</t_end>
          <total_steps>{recipe.steps}</total_steps>
        </t_ramp>
      </motion>
    </motion>"""


def _dynamics(recipe: Recipe, indent: str) -> str:
    thermostat: str = "pile_l" if recipe.kind == "pimd" else recipe.thermostat
    if recipe.kind == "nve":
        thermostat = "none"
    mode = "nve" if thermostat == "none" else "npt" if recipe.kind == "npt" else "nvt"
    lines = [
        '<motion mode="dynamics">',
        "  <fixcom>True</fixcom>",
        f'  <dynamics mode="{mode}">',
        f'    <timestep units="femtosecond">{recipe.timestep_fs:g}</timestep>',
    ]
    if recipe.is_split:
        lines.append(f"    <nmts>[1, {recipe.n_inner}]</nmts>")
    bath = [
        f'    <thermostat mode="{thermostat}">',
        f'      <tau units="femtosecond">{recipe.tau_fs:g}</tau>',
        "    </thermostat>",
    ]
    if mode == "npt":
        tau = f'      <tau units="femtosecond">{recipe.barostat_tau_fs:g}</tau>'
        inner = [f"  {line}" for line in bath]
        lines += ['    <barostat mode="isotropic">', tau, *inner, "    </barostat>"]
    if mode != "nve":
        lines += bath
    return "\n".join(indent + line for line in [*lines, "  </dynamics>", "</motion>"])
