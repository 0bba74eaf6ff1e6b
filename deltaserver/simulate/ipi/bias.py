"""The bias of an i-PI input: an ``<ffdirect>`` of our own file in an ensemble's ``<bias>``.

i-PI adds it to the forces and leaves it out of the potential; its metadynamics, ``<smotion
mode="metad">``, tells it after each step that one is done.
"""

from __future__ import annotations

import xml.etree.ElementTree as ElementTree
from dataclasses import replace
from pathlib import Path
from xml.sax.saxutils import escape

import deltaserver
from deltaserver.bias.hills_file import cut_hills, read_hills
from deltaserver.bias.settings import HILLS_NAME, PES_NAME, Bias
from deltaserver.errors import InputError
from deltaserver.simulate.ipi.input import IpiInput, set_child
from deltaserver.simulate.ipi.plugin import loading, parameters_text, read_parameters

PES_PATH = Path(deltaserver.__file__).with_name(PES_NAME)
NAME = "bias"
IN_ENSEMBLE = f'<bias> <force forcefield="{NAME}"/> </bias>'
SMOTION = f'  <smotion mode="metad"> <metad><metaff>[ {NAME} ]</metaff></metad> </smotion>'


def forcefield(bias: Bias) -> str:
    """Write the force field of a bias."""
    return f"""  <ffdirect name="{NAME}" pbc="false">
    <pes>custom</pes>
    <pes_path>{escape(str(PES_PATH))}</pes_path>
    <parameters>{escape(parameters_text(bias.parameters()))}</parameters>
  </ffdirect>"""


def biases(root: ElementTree.Element) -> list[ElementTree.Element]:
    """Return the force fields of an input that are biases of ours."""
    return loading(root, PES_NAME)


def start_at(ipi_input: IpiInput, directory: Path, step: int) -> IpiInput:
    """Tell an input's bias where its hills are and that so many steps are done; cut the hills.

    Raises:
        InputError: the file of hills is none, or is not that of so many steps.
    """
    root = ElementTree.fromstring(ipi_input.text)
    if not (nodes := biases(root)):
        return ipi_input
    path = (directory / HILLS_NAME).resolve()
    for node in nodes:
        _check_hills(path, Bias.parse(read_parameters(node)), step)
    cut_hills(path, step)
    for node in nodes:
        told = {**read_parameters(node), "hills_file": str(path), "first_step": str(step)}
        set_child(node, "parameters", parameters_text(told))
    return replace(ipi_input, text=ElementTree.tostring(root, encoding="unicode"))


def _check_hills(path: Path, bias: Bias, step: int) -> None:
    """Refuse to go on without hills that are a part of the potential by now (InputError)."""
    if bias.growth is None:
        return
    left = step // bias.growth.hill_every
    found = sum(hill.step <= step for hill in read_hills(path))
    if found != left:
        raise InputError(
            f"{path}: has {found} of the {left} hills that {step} steps have left; put back the "
            "file that the run has written, or begin the run anew"
        )


def continue_biases(state: ElementTree.Element, root: ElementTree.Element, where: Path) -> None:
    """Tell a state's biases what those of the input are told.

    Raises:
        InputError: the one has a bias, and the other has none of that name.
    """
    original = {node.get("name", "").strip(): node for node in biases(root)}
    ours = {node.get("name", "").strip(): node for node in biases(state)}
    if original.keys() != ours.keys():
        raise InputError(f"{where}: was begun with another bias; resume it with the same options")
    for name, node in ours.items():
        set_child(node, "parameters", original[name].findtext("parameters") or "{}")
