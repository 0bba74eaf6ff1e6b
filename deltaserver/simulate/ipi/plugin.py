"""The force fields of an i-PI input that are our plug-in: ``<ffdirect>`` of our own file."""

from __future__ import annotations

import re
import xml.etree.ElementTree as ElementTree
from collections.abc import Mapping
from pathlib import Path

import deltaserver
from deltaserver.bias.settings import split_parameters
from deltaserver.errors import InputError

PES_PATH = Path(deltaserver.__file__).with_name("ipi_pes.py")
UNFIT = re.compile(r"[,{}\n]")  # what separates entries in i-PI's dictionaries


def plugins(root: ElementTree.Element) -> list[ElementTree.Element]:
    """Return the ffdirects that load our file, wherever it is installed."""
    return loading(root, PES_PATH.name)


def loading(root: ElementTree.Element, name: str) -> list[ElementTree.Element]:
    """Return the ffdirects that load a file of that name."""
    return [
        node
        for node in root.iter("ffdirect")
        if (node.findtext("pes") or "").strip() == "custom"
        and Path((node.findtext("pes_path") or "").strip()).name == name
    ]


def parameters_text(parameters: Mapping[str, object]) -> str:
    """Return a dictionary as i-PI reads it.

    Raises:
        InputError: a value has a comma or a brace, which i-PI would split it at.
    """
    for key, value in parameters.items():
        if UNFIT.search(str(value)):
            raise InputError(
                f"{key} is {str(value)!r}: i-PI's <parameters> take no commas and no braces; "
                "give the file another name"
            )
    return "{" + ", ".join(f"{key}:{value}" for key, value in parameters.items()) + "}"


def read_parameters(node: ElementTree.Element) -> dict[str, str]:
    """Read the ``<parameters>`` of an ffdirect."""
    return split_parameters(node.findtext("parameters") or "")


def write_parameters(
    root: ElementTree.Element, defaults: Mapping[str, object], told: Mapping[str, object]
) -> None:
    """Tell every plug-in ``told``, and ``defaults`` where its own parameters say nothing."""
    for node in plugins(root):
        own = {**defaults, **read_parameters(node), **told}
        found = node.find("parameters")
        if found is None:
            found = ElementTree.SubElement(node, "parameters")
        found.text = parameters_text(own)
