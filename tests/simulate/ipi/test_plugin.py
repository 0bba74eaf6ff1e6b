"""The ffdirects of an input that are ours."""

import xml.etree.ElementTree as ElementTree

import pytest

from deltaserver.errors import InputError
from deltaserver.simulate.ipi.plugin import (
    PES_PATH,
    parameters_text,
    plugins,
    read_parameters,
    write_parameters,
)

OURS = f"<ffdirect name='a'><pes>custom</pes><pes_path> {PES_PATH} </pes_path>BODY</ffdirect>"


def root_with(body: str) -> ElementTree.Element:
    return ElementTree.fromstring(f"<simulation>{body}</simulation>")


def test_only_those_of_our_file_are_ours():
    others = (
        "<ffdirect><pes>harmonic</pes></ffdirect>"
        "<ffdirect><pes>custom</pes><pes_path>/x/theirs.py</pes_path></ffdirect>"
        f"<ffdirect><pes>dummy</pes><pes_path>{PES_PATH}</pes_path></ffdirect>"
    )
    root = root_with(f"{others}<ffcommittee>{OURS}</ffcommittee>")
    assert [node.get("name") for node in plugins(root)] == ["a"]


def test_what_is_written_is_what_is_read():
    values = {"models": "/home/me/a b/models", "log_every": 3, "structure_check": False}
    node = root_with(OURS.replace("BODY", "<parameters>{component : binding}</parameters>"))
    write_parameters(node, {"component": "total", "extras": "full"}, values)
    read = read_parameters(plugins(node)[0])
    assert read == {"component": "binding", "extras": "full"} | {
        k: str(v) for k, v in values.items()
    }


def test_what_i_pi_itself_reads(tmp_path):
    io = pytest.importorskip("ipi.utils.io.inputs.io_xml")
    found = io.read_dict(parameters_text({"models": "/a/b:c", "log_every": 3, "check": True}))
    assert found == {"models": "/a/b:c", "log_every": 3, "check": True}


@pytest.mark.parametrize("name", ["/a,b", "/a{b", "/a}"])
def test_names_that_i_pi_would_split_are_refused(name):
    with pytest.raises(InputError, match="no commas and no braces"):
        parameters_text({"models": name})
