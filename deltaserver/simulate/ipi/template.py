"""Write out the systems that an i-PI input makes of a ``<system_template>``.

i-PI replaces labels in the template's text, one list of values for each system::

    <system_template>
      <template><system prefix="NAME"> … TEMPERATURE … </system></template>
      <labels> [ NAME, TEMPERATURE ] </labels>
      <instance> [ cold, 100 ] </instance>
      <instance> [ hot, 300 ] </instance>
    </system_template>

Written out, such an input has outputs, files and steps like any other.
"""

from __future__ import annotations

import xml.etree.ElementTree as ElementTree
from pathlib import Path

from deltaserver.errors import InputError

TEMPLATE = "system_template"


def read_list(text: str | None) -> list[str]:
    """Split i-PI's notation of a list, ``[ a, b ]``; one without brackets is empty."""
    inside = (text or "").partition("[")[2].partition("]")[0]
    return [word.strip(" \n\t'") for word in inside.split(",")] if inside.strip() else []


def write_out_templates(path: Path, root: ElementTree.Element) -> bool:
    """Put systems in the place of every template; return whether there was one.

    Raises:
        InputError: labels and values do not match, or the result is no system.
    """
    found = root.findall(TEMPLATE)
    for template in found:
        place = list(root).index(template)
        root.remove(template)
        for offset, system in enumerate(_systems(path, template)):
            root.insert(place + offset, system)
    return bool(found)


def _systems(path: Path, node: ElementTree.Element) -> list[ElementTree.Element]:
    template = node.find("template")
    if template is None:
        raise InputError(f"{path}: <{TEMPLATE}> has no <template>")
    parts = [ElementTree.tostring(child, encoding="unicode") for child in template]
    text = "".join([template.text or "", *parts])
    labels = read_list(node.findtext("labels"))
    return [
        _one_system(path, text, labels, read_list(instance.text))
        for instance in node.findall("instance")
    ]


def _one_system(path: Path, text: str, labels: list[str], values: list[str]) -> ElementTree.Element:
    if len(labels) != len(values):
        raise InputError(
            f"{path}: <{TEMPLATE}> has {len(labels)} labels and an instance of {len(values)} values"
        )
    for label, value in sorted(zip(labels, values, strict=True), reverse=True):
        text = text.replace(label, value)  # the longer of two labels first, as i-PI does
    try:
        system = ElementTree.fromstring(text.strip())
    except ElementTree.ParseError as error:
        raise InputError(f"{path}: <{TEMPLATE}> is not readable as XML ({error})") from error
    if system.tag != "system":
        raise InputError(f"{path}: <{TEMPLATE}> makes a <{system.tag}>; expected a <system>")
    system.tail = "\n"
    return system
