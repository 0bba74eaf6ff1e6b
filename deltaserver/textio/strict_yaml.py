"""YAML, to be read from anywhere: plain data only, no aliases, no key twice, no long texts."""

from __future__ import annotations

from collections.abc import Hashable
from typing import Any

import yaml

MAX_YAML_BYTES = 1 << 20
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


class _PlainDumper(yaml.SafeDumper):
    """SafeDumper that writes an object out each time it comes up: see :func:`load_yaml`."""

    def ignore_aliases(self, data: Any) -> bool:
        return True


def dump_yaml(data: Any) -> str:
    """Return ``data`` as text that :func:`load_yaml` reads, keys in their order."""
    text: str = yaml.dump(data, Dumper=_PlainDumper, sort_keys=False, allow_unicode=True, width=100)
    return text
