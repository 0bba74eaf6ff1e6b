"""Find the files that an i-PI input names, so that i-PI finds them from a run's directory.

i-PI looks for them from where it is started. Here they are looked for beside the input, above it,
and where the user stands: where the input's author will have stood. Names become absolute.
"""

from __future__ import annotations

import re
import xml.etree.ElementTree as ElementTree
from collections.abc import Iterator
from pathlib import Path

from deltaserver.errors import InputError

# Values of ``mode`` under which an element's text is a file's name.
FILE_MODES = ("xyz", "pdb", "ase", "chk", "json", "binary", "file")
# What <initialize> reads from a checkpoint where no mode is given.
FROM_CHECKPOINT = ("positions", "velocities", "momenta", "masses", "labels")
FILE_TAGS = ("file", "plumed_dat", "yaffpara", "yaffsys", "sGDML_model", "pes_path")
# Read if they are there, written in any case.
CACHE_TAGS = ("ecache_file", "qcache_file")
# What i-PI reads where the input names nothing.
DEFAULTS = {
    "ffplumed": {"plumed_dat": "plumed.dat"},
    "ffyaff": {"yaffpara": "parameters.txt", "yaffsys": "system.chk"},
}
WITH_PARAMETERS = ("ffdirect", "ffmpi")  # their <parameters> are options of any kind, also files
WILDCARDS = re.compile(r"[*?\[\]]")
REFERENCE = re.compile(r"(\bref\s*=\s*)([^;,)\s]+)")  # of the property virial_fq
SOBOL = "SOBOL-RNG"  # random numbers of the self-consistent phonons, by this name only


def make_absolute(path: Path, root: ElementTree.Element) -> tuple[bool, tuple[Path, ...]]:
    """Make the names of files absolute; return whether there were any, and what is to be linked.

    i-PI finds what wildcards name, and what it names itself, only in the directory it runs in:
    such files are to be linked there.

    Raises:
        InputError: a file is not there.
    """
    n_found, links = 0, []
    for node in _named(root):
        name = (node.text or "").strip()
        if WILDCARDS.search(name):
            links += _matching(path, node.tag, name)
            node.text = Path(name).name
        else:
            node.text = str(_existing(path, node.tag, name))
        n_found += 1
    n_found += sum(_change(path, node) for node in _optional(root))
    for tag, names in DEFAULTS.items():
        n_found += sum(_add_defaults(path, node, names) for node in root.iter(tag))
    if root.find(".//scp") is not None and (numbers := find(path, SOBOL)):
        links.append(numbers)
    return n_found > 0, tuple(links)


def _named(root: ElementTree.Element) -> Iterator[ElementTree.Element]:
    """Yield the elements whose text is the name of a file that must be there."""
    inputs = [node for part in root if part.tag != "output" for node in part.iter()]
    begun = {id(child) for node in inputs if node.tag == "initialize" for child in node}
    for node in inputs:
        text = (node.text or "").strip()
        if len(node) or not text or text.startswith("["):
            continue
        default = "chk" if id(node) in begun and node.tag in FROM_CHECKPOINT else ""
        if node.tag in FILE_TAGS or node.get("mode", default).strip() in FILE_MODES:
            yield node


def _optional(root: ElementTree.Element) -> Iterator[ElementTree.Element]:
    """Yield the elements whose text may hold names of files."""
    for tag in WITH_PARAMETERS:
        for node in root.iter(tag):
            yield from node.findall("parameters")
    for tag in (*CACHE_TAGS, "properties"):
        yield from root.iter(tag)


def _change(path: Path, node: ElementTree.Element) -> bool:
    """Make absolute what of an element's text is the name of a file; return whether there was."""
    old = node.text or ""

    def absolute(name: str) -> str:
        bare = name.strip(" \n\t'\"")
        found = find(path, bare) if bare else None
        return name.replace(bare, str(found)) if found else name

    if node.tag == "parameters":
        node.text = re.sub(r"(:)([^,{}]+)", lambda m: m[1] + absolute(m[2]), old)
    elif node.tag == "properties":
        node.text = REFERENCE.sub(lambda m: m[1] + absolute(m[2]), old)
    else:
        node.text = absolute(old)
    return node.text != old


def _add_defaults(path: Path, node: ElementTree.Element, names: dict[str, str]) -> bool:
    """Name the files that i-PI reads unnamed, where they are there."""
    added = False
    for tag, name in names.items():
        found = find(path, name) if node.find(tag) is None else None
        if found:
            ElementTree.SubElement(node, tag).text = str(found)
            added = True
    return added


def _places(path: Path) -> tuple[Path, ...]:
    here = path.resolve().parent
    return here, Path.cwd(), here.parent


def find(path: Path, name: str) -> Path | None:
    """Find a file that the input at ``path`` names; None if it is nowhere."""
    for place in _places(path):
        if (place / name).is_file():
            return (place / name).resolve()
    return None


def _existing(path: Path, tag: str, name: str) -> Path:
    found = find(path, name)
    if found is None:
        raise InputError(f"{path}: <{tag}>: the file {name!r} is not there")
    return found


def _matching(path: Path, tag: str, pattern: str) -> list[Path]:
    for place in _places(path):
        folder = place / Path(pattern).parent
        if found := sorted(p.resolve() for p in folder.glob(Path(pattern).name) if p.is_file()):
            return found
    raise InputError(f"{path}: <{tag}>: no file matches {pattern!r}")
