"""What there is to know of an i-PI input, ours or another: sockets, steps, outputs."""

from __future__ import annotations

import re
import xml.etree.ElementTree as ElementTree
from dataclasses import dataclass, replace
from pathlib import Path

from deltaserver.errors import InputError
from deltaserver.serve.transport import DEFAULT_PREFIX, Address, parse_address


@dataclass(frozen=True)
class IpiInput:
    """What we need to know of an i-PI input, and its text with absolute file names.

    Attributes:
        path: where it was read from.
        addresses: the daemon's sockets.
        total_steps: None if the input does not say.
        structures_per_step: how many structures i-PI sends for one step.
        prefix: of the output files.
        system_prefixes: of each system's output files, mostly one empty text.
        checkpoints: names of the checkpoint files, without the numbers that may follow.
        properties: name of the properties output to follow the run by, without the prefix.
        text: the input.
    """

    path: Path
    addresses: tuple[Address, ...]
    total_steps: int | None
    structures_per_step: int
    prefix: str
    system_prefixes: tuple[str, ...]
    checkpoints: tuple[str, ...]
    properties: str
    text: str

    def outputs(self, name: str) -> tuple[str, ...]:
        """Return the file names of one output, a name for each system."""
        stem = f"{self.prefix}.{name}" if self.prefix else name
        return tuple(f"{system}_{stem}" if system else stem for system in self.system_prefixes)

    def with_total_steps(self, steps: int) -> IpiInput:
        """Return the same input for another number of steps."""
        root = ElementTree.fromstring(self.text)
        set_child(root, "total_steps", str(steps))
        text = ElementTree.tostring(root, encoding="unicode")
        return replace(self, total_steps=steps, text=text)


def set_child(parent: ElementTree.Element, tag: str, text: str) -> None:
    """Set the text of a child element, which is made if it is not there."""
    node = parent.find(tag)
    if node is None:
        node = ElementTree.SubElement(parent, tag)
    node.text = text


def read_input(path: Path, prefix: str = DEFAULT_PREFIX) -> IpiInput:
    """Read an i-PI input file; ``prefix`` is that of its unix sockets.

    Raises:
        InputError: no such file, not XML, no ffsocket, or a structure file that is not there.
    """
    if not path.is_file():
        raise InputError(f"{path}: no such file; expected an i-PI input")
    try:
        text = path.read_text(encoding="utf-8")
    except (UnicodeError, OSError) as error:
        raise InputError(f"{path}: not readable as XML ({error})") from error
    return parse_input(path, text, prefix)


def parse_input(path: Path, text: str, prefix: str = DEFAULT_PREFIX) -> IpiInput:
    """Parse the text of an i-PI input; ``path`` is where it stands, or will.

    Raises:
        InputError: as :func:`read_input`.
    """
    try:
        root = ElementTree.fromstring(text)
    except ElementTree.ParseError as error:
        raise InputError(f"{path}: not readable as XML ({error})") from error
    if root.tag != "simulation":
        raise InputError(f"{path}: the root is <{root.tag}>; expected <simulation>")
    addresses = tuple(dict.fromkeys(_address(path, node, prefix) for node in root.iter("ffsocket")))
    if not addresses:
        raise InputError(f"{path}: no <ffsocket>; expected at least one for the daemon to serve")
    files = list(root.iter("file"))
    for node in files:
        node.text = str(_existing(path, (node.text or "").strip()))
    steps = root.findtext("total_steps")
    output = root.find("output")
    systems = root.findall("system")
    return IpiInput(
        path=path,
        addresses=addresses,
        total_steps=_count(path, "total_steps", steps) if steps else None,
        structures_per_step=sum(_structures(path, system) for system in systems) or 1,
        prefix="i-pi" if output is None else output.get("prefix", "i-pi"),
        system_prefixes=tuple(system.get("prefix", "") for system in systems) or ("",),
        checkpoints=_checkpoints(output),
        properties=_properties(output),
        text=ElementTree.tostring(root, encoding="unicode") if files else text,
    )


def _checkpoints(output: ElementTree.Element | None) -> tuple[str, ...]:
    if output is None:
        return ("i-pi.checkpoint",)  # i-PI's default output
    prefix = output.get("prefix", "i-pi")
    names = [node.get("filename", "restart") for node in output.findall("checkpoint")]
    return tuple(f"{prefix}.{name}" if prefix else name for name in names)


def _properties(output: ElementTree.Element | None) -> str:
    """Name the first properties output that has the step and the conserved quantity."""
    if output is None:
        return "md"  # i-PI's default output
    nodes = output.findall("properties")
    full = [n for n in nodes if "step" in (n.text or "") and "conserved" in (n.text or "")]
    return next((node.get("filename", "out") for node in [*full, *nodes]), "out")


def _structures(path: Path, system: ElementTree.Element) -> int:
    """Count the structures that one system's step sends: beads × force components × inner steps."""
    beads = max(
        (_count(path, "nbeads", node.get("nbeads", "1")) for node in system.iter("initialize")),
        default=1,
    )
    inner = [int(n) for n in re.findall(r"\d+", system.findtext(".//nmts") or "")] or [1]
    total = 0
    for force in system.findall("forces/force"):
        weights = re.findall(r"[-+.\dEe]+", force.findtext("mts_weights") or "") or ["1"]
        repeats, per_level = 0, 1
        for level, weight in enumerate(weights):
            per_level *= inner[level] if level < len(inner) else 1
            repeats = per_level if float(weight) else repeats
        total += max(1, repeats)
    return beads * max(1, total)


def _count(path: Path, what: str, text: str) -> int:
    if not text.strip().isdecimal():
        raise InputError(f"{path}: {what} is {text.strip()!r}; expected a whole number")
    return int(text)


def _address(path: Path, node: ElementTree.Element, prefix: str) -> Address:
    name = (node.findtext("address") or "localhost").strip()
    mode = node.get("mode", "inet").strip()
    if mode not in ("unix", "inet"):
        raise InputError(
            f'{path}: <ffsocket mode="{mode}"> is not supported; expected mode="unix" or "inet"'
        )
    if mode == "unix":
        return parse_address(f"unix:{name}", prefix)
    port = (node.findtext("port") or "65535").strip()
    # A server that listens on every interface is reached on this machine's own.
    return parse_address(f"inet:{'localhost' if name == '0.0.0.0' else name}:{port}")


def _existing(input_path: Path, name: str) -> Path:
    """Find a file named in the input.

    i-PI looks from where it is started; we look there, then beside the input and above it, where
    the input's author will have stood.
    """
    here = input_path.resolve().parent
    for base in (Path.cwd(), here, here.parent):
        if (base / name).is_file():
            return (base / name).resolve()
    raise InputError(f"{input_path}: the structure file {name!r} is not there")
