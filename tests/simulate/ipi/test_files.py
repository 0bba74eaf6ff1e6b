"""Every kind of file that an i-PI input names, wherever the user stands."""

from __future__ import annotations

import xml.etree.ElementTree as ElementTree
from pathlib import Path

import pytest

from deltaserver.errors import InputError
from deltaserver.simulate.ipi.files import make_absolute

NAMES = {
    "positions mode='xyz'": ".//initialize/positions",
    "velocities mode='pdb'": ".//initialize/velocities",
    "momenta mode='ase'": ".//initialize/momenta",
    "masses": ".//initialize/masses",
    "labels mode='xyz'": ".//initialize/labels",
    "cell mode='pdb'": ".//initialize/cell",
    "gle mode='chk'": ".//initialize/gle",
    "file mode='chk'": ".//initialize/file",
}


def parse(body: str) -> ElementTree.Element:
    return ElementTree.fromstring(f"<simulation>{body}</simulation>")


@pytest.fixture
def here(tmp_path, monkeypatch):
    """Inputs and their files in a directory where the user does not stand."""
    (tmp_path / "sub").mkdir()
    (tmp_path / "sub" / "a.dat").write_text("1\n")
    (tmp_path / "above.dat").write_text("1\n")
    monkeypatch.chdir("/")
    return tmp_path / "sub"


@pytest.mark.parametrize("tag", NAMES)
def test_what_systems_begin_with(here, tag):
    root = parse(f"<system><initialize><{tag}> a.dat </{tag.split()[0]}></initialize></system>")
    assert make_absolute(here / "in.xml", root) == (True, ())
    assert root.findtext(NAMES[tag]) == str(here / "a.dat")


@pytest.mark.parametrize(
    "body",
    [
        "<ffplumed><file mode='xyz'>a.dat</file></ffplumed>",
        "<ffplumed><plumed_dat>a.dat</plumed_dat></ffplumed>",
        "<ffyaff><yaffpara>a.dat</yaffpara></ffyaff>",
        "<ffyaff><yaffsys>a.dat</yaffsys></ffyaff>",
        "<ffsgdml><sGDML_model>a.dat</sGDML_model></ffsgdml>",
        "<ffdirect><pes_path>a.dat</pes_path></ffdirect>",
        "<ffcommittee><ffdirect><pes_path>a.dat</pes_path></ffdirect></ffcommittee>",
        "<ffdebye><hessian mode='file' shape='(3,3)'>a.dat</hessian></ffdebye>",
        "<ffdebye><x_reference mode='file'>a.dat</x_reference></ffdebye>",
        "<ffdmd><dmd_coupling mode='file'>a.dat</dmd_coupling></ffdmd>",
        "<system><motion><dynamics><thermostat mode='gle'><A mode='file'>a.dat</A></thermostat>"
        "</dynamics></motion></system>",
        "<system><motion><dynamics><thermostat mode='gle'><C mode='file'>a.dat</C></thermostat>"
        "</dynamics></motion></system>",
        "<system><normal_modes><frequencies mode='file'>a.dat</frequencies></normal_modes>"
        "</system>",
        "<system><motion mode='replay'><file mode='xyz'>a.dat</file></motion></system>",
        "<system><motion><vibrations><dynmat mode='file'>a.dat</dynmat></vibrations></motion>"
        "</system>",
    ],
)
def test_force_fields_and_matrices(here, body):
    for name in ("a.dat", "above.dat"):
        root = parse(body.replace("a.dat", name))
        path = here / name if name == "a.dat" else here.parent / name
        assert make_absolute(here / "in.xml", root)[0]
        assert str(path) in [node.text for node in root.iter()]
    with pytest.raises(InputError, match=r"in.xml: <\w+>: the file 'gone' is not there"):
        make_absolute(here / "in.xml", parse(body.replace("a.dat", "gone")))


def test_numbers_are_no_files(here):
    body = """<system><initialize nbeads='1'><velocities mode='thermal'>300</velocities>
      <cell mode='abc'>[1, 1, 1]</cell><masses mode='manual'>[1, 2]</masses>
      <positions>[1, 2, 3]</positions></initialize></system>
      <output><trajectory mode='xyz'>positions</trajectory></output>
      <ffsocket><address>a.dat</address><parameters>{component:a.dat}</parameters></ffsocket>"""
    root = parse(body)
    before = ElementTree.tostring(root)
    assert make_absolute(here / "in.xml", root) == (False, ())
    assert ElementTree.tostring(root) == before


def test_parameters_and_arguments_that_are_files(here):
    root = parse("""<ffdirect><parameters>{template: a.dat, device: cpu}</parameters></ffdirect>
      <output><properties>[ step, virial_fq(ref=a.dat;units=angstrom) ]</properties></output>""")
    assert make_absolute(here / "in.xml", root)[0]
    assert root.findtext(".//parameters") == f"{{template: {here}/a.dat, device: cpu}}"
    assert f"(ref={here}/a.dat;units=angstrom)" in root.findtext(".//properties")


def test_files_that_i_pi_reads_unnamed(here):
    (here / "plumed.dat").write_text("")
    root = parse("<ffplumed/><ffyaff/>")
    assert make_absolute(here / "in.xml", root)[0]
    assert root.findtext("ffplumed/plumed_dat") == str(here / "plumed.dat")
    assert root.find("ffyaff/yaffsys") is None


def test_wildcards_are_linked(here):
    """i-PI looks for them only where it runs."""
    for k in range(2):
        (here / f"old.pos_{k}.xyz").write_text("")
    body = "<system><motion mode='replay'><file mode='xyz'>old.pos_?.xyz</file></motion></system>"
    root = parse(body)
    changed, links = make_absolute(here / "in.xml", root)
    assert changed
    assert links == (here / "old.pos_0.xyz", here / "old.pos_1.xyz")
    assert root.findtext(".//file") == "old.pos_?.xyz"
    with pytest.raises(InputError, match=r"no file matches 'new\*'"):
        make_absolute(here / "in.xml", parse(body.replace("old.pos_?.xyz", "new*")))


def test_the_input_s_own_neighbour_comes_first(here, monkeypatch, tmp_path):
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    (elsewhere / "a.dat").write_text("2\n")
    monkeypatch.chdir(elsewhere)
    root = parse("<system><initialize><file mode='xyz'>a.dat</file></initialize></system>")
    make_absolute(Path("../sub/in.xml"), root)
    assert root.findtext(".//file") == str(here / "a.dat")
