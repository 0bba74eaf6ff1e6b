"""The files that an i-PI input makes i-PI write: their names, and how often."""

from __future__ import annotations

import re
import xml.etree.ElementTree as ElementTree
from dataclasses import dataclass
from typing import Literal

OutputKind = Literal["properties", "trajectory", "checkpoint", "swaps"]
DEFAULT_PREFIX = "i-pi"
EXTENSIONS = {"ase": "extxyz"}  # of formats that are not called as their files are


@dataclass(frozen=True)
class Output:
    """One output, in all its files: of every system, every bead.

    Attributes:
        kind: what is written.
        name: of the files, without the output's prefix.
        stem: with it; a system's prefix comes before that.
        stride: steps between records.
        what: the properties or the quantity.
        extension: of a trajectory's files, with the dot; empty for extras.
    """

    kind: OutputKind
    name: str
    stem: str
    stride: int
    what: str = ""
    extension: str = ""

    def steps_from(self, first_step: int) -> tuple[int, int]:
        """Return the first record's step and the stride of a run that began at ``first_step``.

        i-PI writes step 0, and then multiples of the stride.
        """
        first = 0 if first_step == 0 else (first_step // self.stride + 1) * self.stride
        return first, self.stride

    def pattern(self, system_prefixes: tuple[str, ...]) -> re.Pattern[str]:
        """Return what the files' names match."""
        of_systems = self.kind in ("properties", "trajectory")
        prefixes = [f"{p}_" if p and of_systems else "" for p in system_prefixes]
        systems = "|".join(map(re.escape, dict.fromkeys(prefixes)))
        number = r"(_\d+)?" if self.kind in ("trajectory", "checkpoint") else ""
        tail = re.escape(self.extension)
        return re.compile(f"({systems}){re.escape(self.stem)}{number}{tail}")


def read_outputs(root: ElementTree.Element) -> tuple[Output, ...]:
    """Read what an input writes; i-PI's default outputs if it does not say."""
    node = root.find("output")
    prefix = DEFAULT_PREFIX if node is None else node.get("prefix", DEFAULT_PREFIX).strip()
    stem = f"{prefix}." if prefix else ""
    swaps = [
        remd.findtext("swapfile", "remd_idx").strip() for remd in root.findall("smotion//remd")
    ]
    found = [Output("swaps", name, stem + name, 1) for name in swaps]
    if node is None:
        what = "[time, step, conserved, temperature, potential, kinetic_cv]"
        return (
            Output("properties", "md", f"{stem}md", 10, what),
            Output("trajectory", "pos", f"{stem}pos", 100, "positions", ".xyz"),
            Output("checkpoint", "checkpoint", f"{stem}checkpoint", 1000),
            *found,
        )
    return (*(o for child in node if (o := _output(child, stem))), *found)


def _output(node: ElementTree.Element, stem: str) -> Output | None:
    default = {"properties": "out", "trajectory": "traj", "checkpoint": "restart"}.get(node.tag)
    if default is None:
        return None
    name = node.get("filename", default).strip()
    what = (node.text or "").strip()
    extension = ""
    if node.tag == "trajectory" and not what.startswith("extras"):
        form = node.get("format", "xyz").strip()
        extension = f".{EXTENSIONS.get(form, form)}"
    kind: OutputKind = node.tag  # type: ignore[assignment]
    return Output(kind, name, stem + name, _stride(node), what, extension)


def _stride(node: ElementTree.Element) -> int:
    text = node.get("stride", "1").strip()
    return max(1, int(text)) if text.isdecimal() else 1


def followed(outputs: tuple[Output, ...]) -> Output | None:
    """Return the properties to follow a run by: with the step and the conserved quantity.

    Failing that, those with the conserved quantity: their lines are counted.
    """
    properties = [output for output in outputs if output.kind == "properties"]
    wanted = (("step", "conserved"), ("conserved",), ("step",), ())
    for words in wanted:
        for output in properties:
            names = re.findall(r"[A-Za-z_]\w*", re.sub(r"\{[^}]*\}|\([^)]*\)", "", output.what))
            if all(word in names for word in words):
                return output
    return None
