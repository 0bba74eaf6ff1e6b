"""YAML, to be read from anywhere: plain data only, no aliases, no key twice, no long texts.

:class:`Checker` reads a file of it, and refuses what an entry should not be.
"""

from __future__ import annotations

import math
from collections.abc import Hashable
from pathlib import Path
from typing import Any

import yaml

from deltaserver.errors import InputError

MAX_YAML_BYTES = 1 << 20
MAX_SHOWN = 80  # characters of a value in a message
# What PyYAML raises: its own errors, and others at tags that do not fit, such as !!bool maybe.
BAD_YAML = (
    yaml.YAMLError, ValueError, LookupError, AttributeError, TypeError, OverflowError,
    RecursionError,
)  # fmt: skip


class _PlainLoader(yaml.SafeLoader):
    """SafeLoader that refuses a key that stands twice, and aliases.

    Our files need no aliases, and a few lines of them can stand for billions of entries.
    """

    def compose_node(self, parent: yaml.Node | None, index: int) -> yaml.Node | None:
        if self.check_event(yaml.AliasEvent):
            raise yaml.YAMLError("an alias (*name) stands where a value is expected")
        return super().compose_node(parent, index)

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Hashable, Any]:
        seen = set()
        for key_node, _ in node.value:
            key = self.construct_object(key_node, deep=True)
            if isinstance(key, Hashable):  # of the others SafeLoader complains itself
                if key in seen:
                    raise yaml.YAMLError(f"key {key!r} stands twice in one mapping")
                seen.add(key)
        return super().construct_mapping(node, deep)


def load_yaml(text: str | bytes) -> Any:
    """Return what ``text`` holds.

    Raises:
        one of BAD_YAML: it is no YAML, too long, or holds what the module does not allow.
    """
    if len(text) > MAX_YAML_BYTES:
        raise ValueError(f"longer than {MAX_YAML_BYTES} bytes")
    return yaml.load(text, Loader=_PlainLoader)


class Checker:
    """Checks what a YAML file holds, entry by entry; a fault is one line.

    Every method takes a value and ``what`` it is, which the message begins with; so does the
    file's path, where there is a file.

    Args:
        path: of the file, None for a part of one.
        fault: the error that is raised.
    """

    def __init__(self, path: Path | None, fault: type[InputError]) -> None:
        self.path = path
        self.fault = fault

    def error(self, message: str) -> InputError:
        """Return the error that says so."""
        return self.fault(message if self.path is None else f"{self.path}: {message}")

    def read(self) -> Any:
        """Return what the file holds."""
        assert self.path is not None
        try:
            with self.path.open("rb") as file:
                return load_yaml(file.read(MAX_YAML_BYTES + 1))
        except OSError as error:
            raise self.error(f"cannot be read ({one_line(error)})") from error
        except BAD_YAML as error:
            raise self.error(f"not readable as YAML ({one_line(error)})") from None

    def mapping(
        self, data: Any, what: str, required: tuple[str, ...], optional: tuple[str, ...] = ()
    ) -> dict[str, Any]:
        """Return a mapping that has every required key and no unknown one."""
        known = (*required, *optional)
        if not isinstance(data, dict):
            raise self.error(f"{what} is {shown(data)}; expected a mapping of {', '.join(known)}")
        if unknown := [shown(key) for key in data if key not in known]:
            raise self.error(
                f"{what} has the unknown key {', '.join(unknown)[:MAX_SHOWN]}; "
                f"known keys: {', '.join(known)}"
            )
        if missing := [key for key in required if key not in data]:
            raise self.error(f"{what} lacks {', '.join(missing)}")
        return data

    def format(self, data: dict[str, Any], expected: str) -> None:
        """Refuse a file that is written in another format than we read."""
        if data["format"] != expected:
            raise self.error(f"format is {shown(data['format'])}; this version reads {expected!r}")

    def sequence(self, data: Any, what: str) -> list[Any]:
        """Return a list."""
        if not isinstance(data, list):
            raise self.error(f"{what} is {shown(data)}; expected a list")
        return data

    def text(self, value: Any, what: str) -> str:
        """Return a text that is not empty."""
        if not isinstance(value, str) or not value.strip():
            raise self.error(f"{what} is {shown(value)}; expected text")
        return value.strip()

    def number(self, value: Any, what: str) -> float:
        """Return a finite number, such as -4.3e2 too, which YAML 1.1 takes for text."""
        try:
            number = math.nan if isinstance(value, bool) else float(value)
        except (TypeError, ValueError, OverflowError):
            number = math.nan
        if not math.isfinite(number):
            raise self.error(f"{what} is {shown(value)}; expected a finite number")
        return number


def one_line(error: Exception) -> str:
    """Return what an error says as the end of a line."""
    return " ".join(str(error).split())[:200] or type(error).__name__


def shown(value: Any) -> str:
    """Return a value as messages show it."""
    if value is None:
        return "empty"
    if isinstance(value, (str, float)) or (isinstance(value, int) and abs(value) < 10**15):
        text = repr(value)
        return text if len(text) <= MAX_SHOWN else f"{text[:MAX_SHOWN]}…"
    return {"dict": "a mapping", "list": "a list"}.get(type(value).__name__, type(value).__name__)


class _PlainDumper(yaml.SafeDumper):
    """SafeDumper that writes an object out each time it comes up: see :func:`load_yaml`."""

    def ignore_aliases(self, data: Any) -> bool:
        return True


def dump_yaml(data: Any) -> str:
    """Return ``data`` as text that :func:`load_yaml` reads, keys in their order."""
    text: str = yaml.dump(data, Dumper=_PlainDumper, sort_keys=False, allow_unicode=True, width=100)
    return text
