"""What there is to know of an i-PI input, ours or another: sockets, steps, outputs."""

from __future__ import annotations

import re
import xml.etree.ElementTree as ElementTree
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from deltaserver.errors import InputError
from deltaserver.serve.transport import DEFAULT_PREFIX, Address, parse_address
from deltaserver.simulate.ipi.files import make_absolute
from deltaserver.simulate.ipi.motion import (
    count,
    is_conserved,
    is_dynamics,
    is_even,
    shortest_step_fs,
    structures_per_step,
)
from deltaserver.simulate.ipi.outputs import Output, followed, read_outputs
from deltaserver.simulate.ipi.plugin import plugins
from deltaserver.simulate.ipi.template import write_out_templates

DEFAULT_STEPS = 1000  # what i-PI does where the input does not say
DEFAULT_SOCKET_PORT = "65535"


@dataclass(frozen=True)
class Socket:
    """One ffsocket.

    Attributes:
        name: of the forcefield.
        address: where i-PI listens.
        component: what it asks for in its ``<parameters>``, if it does.
    """

    name: str
    address: Address
    component: str | None


@dataclass(frozen=True)
class IpiInput:
    """What we need to know of an i-PI input, and its text with absolute file names.

    Attributes:
        path: where it was read from.
        sockets: all of them, ours or another program's.
        served: names of those that the daemon serves, or of our plug-ins.
        first_step: that it begins with; not 0 where it continues another run.
        total_steps: None if the input does not say.
        structures_per_step: how many structures i-PI sends us for one step.
        even: whether every step sends as many.
        dynamics: whether all it does is move in time.
        conserved: whether its conserved quantity is one.
        prefix: of the output files.
        system_prefixes: of each system's output files, mostly one empty text.
        files: what it writes.
        text: the input.
        links: files that i-PI finds only in the directory where it runs.
        has_plugin: whether i-PI evaluates the model itself; other sockets are another program's.
    """

    path: Path
    sockets: tuple[Socket, ...]
    served: tuple[str, ...]
    first_step: int
    total_steps: int | None
    structures_per_step: int
    even: bool
    dynamics: bool
    conserved: bool
    prefix: str
    system_prefixes: tuple[str, ...]
    files: tuple[Output, ...]
    text: str
    links: tuple[Path, ...] = ()
    has_plugin: bool = False

    @property
    def addresses(self) -> tuple[Address, ...]:
        """The sockets that the daemon serves."""
        ours = [socket.address for socket in self.sockets if socket.name in self.served]
        return tuple(dict.fromkeys(ours))

    @property
    def all_addresses(self) -> tuple[Address, ...]:
        """Every socket that i-PI opens."""
        return tuple(dict.fromkeys(socket.address for socket in self.sockets))

    @property
    def checkpoints(self) -> tuple[str, ...]:
        """Names of the checkpoint files, without the numbers that may follow."""
        return tuple(output.stem for output in self.files if output.kind == "checkpoint")

    @property
    def properties(self) -> str:
        """Name of the properties output to follow the run by, without the prefix."""
        output = followed(self.files)
        return output.name if output else "out"

    @property
    def properties_steps(self) -> tuple[int, int]:
        """The step of that output's first line, and the steps between lines."""
        output = followed(self.files)
        return output.steps_from(self.first_step) if output else (0, 1)

    @property
    def last_step(self) -> int:
        """The step at which it is done."""
        return DEFAULT_STEPS if self.total_steps is None else self.total_steps

    @property
    def step_fs(self) -> float:
        """The shortest time step, the innermost of several; 0 where there is none."""
        return shortest_step_fs(ElementTree.fromstring(self.text))

    @property
    def temperatures_k(self) -> tuple[float, ...]:
        """The temperatures of its ensembles, those that it gives in kelvin."""
        nodes = ElementTree.fromstring(self.text).iterfind(".//ensemble/temperature")
        kelvin = [float(n.text or 0.0) for n in nodes if n.get("units", "") == "kelvin"]
        return tuple(dict.fromkeys(t for t in kelvin if t > 0.0))

    def outputs(self, name: str) -> tuple[str, ...]:
        """Return the file names of one output, a name for each system."""
        stem = f"{self.prefix}.{name}" if self.prefix else name
        return tuple(f"{system}_{stem}" if system else stem for system in self.system_prefixes)

    def written(self, directory: Path) -> list[tuple[Path, Output]]:
        """Return the files of a directory that i-PI writes for this input, and no other."""
        found = []
        for output in self.files:
            folder = directory / Path(output.stem).parent
            pattern = output.pattern(self.system_prefixes)
            for path in sorted(folder.glob("*")):
                if path.is_file() and pattern.fullmatch(str(path.relative_to(directory))):
                    found.append((path, output))
        return found

    def with_total_steps(self, steps: int) -> IpiInput:
        """Return the same input for another number of steps."""
        root = ElementTree.fromstring(self.text)
        set_child(root, "total_steps", str(steps))
        text = ElementTree.tostring(root, encoding="unicode")
        return replace(self, total_steps=steps, text=text)

    def serving(self, names: Sequence[str]) -> IpiInput:
        """Return the same input with only the sockets ``names`` served; all if none are given.

        Raises:
            InputError: there is no such socket, it cannot be served, or none are given and it is
                not clear whether all are ours.
        """
        if self.has_plugin:
            if names:
                raise InputError(
                    f"--serve {names[0]}: {self.path} has our plug-in, so that no daemon serves it"
                )
            return self
        known = [socket.name for socket in self.sockets]
        if unknown := [name for name in names if name not in known]:
            raise InputError(
                f"--serve {unknown[0]}: {self.path} has no <ffsocket> of that name; it has "
                f"{', '.join(map(repr, known))}"
            )
        unnamed = [socket.name for socket in self.sockets if socket.component is None]
        if not names and len(known) > 1 and unnamed:
            raise InputError(
                f"{self.path}: several <ffsocket>, and {', '.join(map(repr, unnamed))} name no "
                "component: are all of them ours? Say which with --serve NAME, or name a component "
                "in each: <parameters>{component:total}</parameters>"
            )
        served = tuple(names) or self.served
        root = ElementTree.fromstring(self.text)
        n = structures_per_step(self.path, root, served)
        return replace(self, served=served, structures_per_step=n, even=is_even(root, served))


def set_child(parent: ElementTree.Element, tag: str, text: str) -> None:
    """Set the text of a child element, which is made if it is not there."""
    node = parent.find(tag)
    if node is None:
        node = ElementTree.SubElement(parent, tag)
    node.text = text


def read_input(path: Path, prefix: str | None = None) -> IpiInput:
    """Read an i-PI input file; ``prefix`` is that of its unix sockets, if not what it says.

    Raises:
        InputError: no such file, not XML, no ffsocket, or a file it names that is not there.
    """
    if not path.is_file():
        raise InputError(f"{path}: no such file; expected an i-PI input")
    try:
        text = path.read_text(encoding="utf-8")
    except (UnicodeError, OSError) as error:
        raise InputError(f"{path}: not readable as XML ({error})") from error
    return parse_input(path, text, prefix)


def parse_input(path: Path, text: str, prefix: str | None = None) -> IpiInput:
    """Parse the text of an i-PI input; ``path`` is where it stands, or will.

    Raises:
        InputError: as :func:`read_input`.
    """
    path = Path(path)
    try:
        root = ElementTree.fromstring(text)
    except ElementTree.ParseError as error:
        raise InputError(f"{path}: not readable as XML ({error})") from error
    if root.tag != "simulation":
        raise InputError(f"{path}: the root is <{root.tag}>; expected <simulation>")
    changed = write_out_templates(path, root)
    prefix, moved = _sockets_prefix(root, prefix)
    sockets = tuple(_socket(path, node, prefix) for node in root.iter("ffsocket"))
    inside = tuple(node.get("name", "").strip() for node in plugins(root))
    if not sockets and not inside:
        raise InputError(
            f"{path}: no <ffsocket>; expected at least one for the daemon to serve, or an "
            "<ffdirect> of our plug-in"
        )
    named, links = make_absolute(path, root)
    steps = root.findtext("total_steps")
    output = root.find("output")
    systems = root.findall("system")
    served = inside or tuple(socket.name for socket in sockets)
    return IpiInput(
        path=path,
        sockets=sockets,
        served=served,
        first_step=count(path, "step", root.findtext("step") or "0"),
        total_steps=count(path, "total_steps", steps) if steps else None,
        structures_per_step=structures_per_step(path, root, served),
        even=is_even(root, served),
        dynamics=is_dynamics(root),
        conserved=is_conserved(root),
        prefix="i-pi" if output is None else output.get("prefix", "i-pi").strip(),
        system_prefixes=tuple(system.get("prefix", "") for system in systems) or ("",),
        files=read_outputs(root),
        text=ElementTree.tostring(root, encoding="unicode") if changed | moved | named else text,
        links=links,
        has_plugin=bool(inside),
    )


def _sockets_prefix(root: ElementTree.Element, given: str | None) -> tuple[str, bool]:
    """Return what stands before the names of unix sockets, and whether names were made absolute.

    i-PI counts relative ones from where it is started, which is not where the user stands.
    """
    prefix = root.get("sockets_prefix", DEFAULT_PREFIX) if given is None else given
    if given is not None or prefix.startswith("/"):
        return prefix, False
    root.set("sockets_prefix", "")
    for node in (*root.iter("ffsocket"), *root.iter("ffcavphsocket")):
        if node.get("mode", "inet").strip() != "inet":
            name = (node.findtext("address") or "localhost").strip()
            set_child(node, "address", str(Path.cwd() / f"{prefix}{name}"))
    return "", True


def _socket(path: Path, node: ElementTree.Element, prefix: str) -> Socket:
    parameters = re.search(r"\bcomponent\s*:\s*([^,}\s]+)", node.findtext("parameters") or "")
    name = node.get("name", "").strip()
    return Socket(name, _address(path, node, prefix), parameters[1] if parameters else None)


def _address(path: Path, node: ElementTree.Element, prefix: str) -> Address:
    mode = node.get("mode", "inet").strip()
    name = (node.findtext("address") or "localhost").strip()
    if mode not in ("unix", "inet"):
        raise InputError(
            f'{path}: <ffsocket mode="{mode}"> is not supported; expected mode="unix" or "inet"'
        )
    if mode == "unix":
        return parse_address(f"unix:{prefix}{name}")  # i-PI does so with a path too
    port = (node.findtext("port") or DEFAULT_SOCKET_PORT).strip()
    # A server that listens on every interface is reached on this machine's own.
    return parse_address(f"inet:{'localhost' if name == '0.0.0.0' else name}:{port}")
