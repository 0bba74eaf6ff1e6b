"""Write an i-PI input for a model. No IO.

The input is complete in itself: positions, masses and cell stand in it, so that it runs from any
directory and i-PI needs no other file.
"""

from __future__ import annotations

from collections.abc import Mapping
from xml.sax.saxutils import escape

import numpy as np

from deltaserver.errors import InputError
from deltaserver.simulate.ipi import bias
from deltaserver.simulate.ipi.plugin import PES_PATH, parameters_text
from deltaserver.simulate.recipe import Recipe, Subject
from deltaserver.textio.species import parse_species

CELL_ANG = 300.0
INNER, OUTER = "inner", "outer"


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
    threading = len(recipe.systems_k) > 1
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
    batch = recipe.n_beads if recipe.kind == "pimd" else len(recipe.systems_k)
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
    if recipe.kind != "remd" and recipe.n_replicas is None:
        return _system(recipe, subject, recipe.temperatures_k[0], "")
    systems = [
        _system(recipe, subject, t, f' prefix="{k}_{t:g}K"') for k, t in enumerate(recipe.systems_k)
    ]
    if recipe.kind != "remd":
        return "\n".join(systems)
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
