import xml.etree.ElementTree as ElementTree

import pytest

from deltaserver.errors import InputError
from deltaserver.serve.transport import InetAddress, UnixAddress
from deltaserver.simulate.ipi.input import parse_input, read_input

INPUT = """<simulation>
  <output prefix="run">
    <properties filename="short"> [ step, time ] </properties>
    <properties filename="long"> [ time, step, conserved{electronvolt} ] </properties>
    <checkpoint stride="10"/>
    <checkpoint stride="20" filename="state" overwrite="false"/>
  </output>
  <total_steps>50</total_steps>
  <ffsocket mode="unix" name="a"><address> here </address></ffsocket>
  <ffsocket mode="inet" name="b"><address>0.0.0.0</address><port>31415</port></ffsocket>
  <ffsocket name="c"/>
  <system prefix="s1"><initialize nbeads="4"><file mode="xyz">start.xyz</file></initialize>
    <forces><force forcefield="a"/><force forcefield="b"><mts_weights>[0, 1]</mts_weights></force>
    </forces><motion><dynamics><nmts>[1, 3]</nmts></dynamics></motion></system>
  <system prefix="s2"><initialize nbeads="1"/><forces><force forcefield="a"/></forces></system>
</simulation>"""


@pytest.fixture
def path(tmp_path):
    (tmp_path / "start.xyz").write_text("1\n\nH 0 0 0\n")
    result = tmp_path / "input.xml"
    result.write_text(INPUT)
    return result


def test_what_there_is_to_know(path):
    known = read_input(path, "/tmp/pre_")
    assert known.addresses == (
        UnixAddress("/tmp/pre_here"),
        InetAddress("localhost", 31415),
        InetAddress("localhost", 65535),
    )
    assert known.total_steps == 50
    assert known.structures_per_step == 4 * (1 + 3) + 1
    assert known.outputs("out") == ("s1_run.out", "s2_run.out")
    assert known.checkpoints == ("run.restart", "run.state")
    assert known.properties == "long"


def test_structure_files_become_absolute(path):
    text = read_input(path).text
    assert ElementTree.fromstring(text).findtext(".//file") == str(path.parent / "start.xyz")


def test_an_input_without_files_is_kept_to_the_letter():
    socket = "<ffsocket mode='unix'><address>a</address></ffsocket>"
    text = f"<simulation><!-- mine -->{socket}</simulation>"
    known = parse_input("input.xml", text)
    assert known.text == text
    assert (known.total_steps, known.structures_per_step) == (None, 1)
    assert known.outputs("out") == ("i-pi.out",)
    assert known.checkpoints == ("i-pi.checkpoint",)
    assert known.properties == "md"


def test_another_number_of_steps(path):
    longer = read_input(path).with_total_steps(80)
    assert longer.total_steps == 80
    assert ElementTree.fromstring(longer.text).findtext("total_steps") == "80"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("<simulation>", "not readable as XML"),
        ("<input/>", "expected <simulation>"),
        ("<simulation/>", "no <ffsocket>"),
        (INPUT.replace("start.xyz", "gone.xyz"), "'gone.xyz' is not there"),
        (INPUT.replace(">50<", ">-5<"), "total_steps is '-5'; expected a whole number"),
        (INPUT.replace('nbeads="4"', 'nbeads="x"'), "nbeads is 'x'"),
    ],
)
def test_inputs_that_are_wrong(path, text, message):
    path.write_text(text)
    with pytest.raises(InputError, match=message):
        read_input(path)


def test_files_that_are_no_text(path):
    path.write_bytes(b"\xff\xfe\x00")
    with pytest.raises(InputError, match="not readable as XML"):
        read_input(path)
    with pytest.raises(InputError, match="no such file"):
        read_input(path.with_name("absent.xml"))


def test_shared_memory_sockets_are_refused_by_name(tmp_path):
    text = (
        '<simulation><ffsocket mode="shm" name="d"><address>delta</address></ffsocket></simulation>'
    )
    with pytest.raises(InputError, match='mode="shm"> is not supported; expected mode="unix"'):
        parse_input(tmp_path / "input.xml", text)


SEVERAL = """<simulation>
  <ffsocket mode="unix" name="a"><address>a</address>{first}</ffsocket>
  <ffsocket mode="unix" name="b"><address>b</address>{second}</ffsocket>
  <system><initialize nbeads="1"/><forces><force forcefield="a"/><force forcefield="b"/></forces>
  </system></simulation>"""
NAMED = "<parameters>{ component : binding }</parameters>"


@pytest.mark.parametrize(
    ("first", "second", "serve", "served"),
    [(NAMED, NAMED, (), "ab"), ("", "", ("a", "b"), "ab"), ("", "", ("b",), "b"),
     ("", NAMED, ("b",), "b"), ("", "", (), None), (NAMED, "", (), None)],
)  # fmt: skip
def test_which_of_several_sockets_are_ours(first, second, serve, served):
    known = parse_input("in.xml", SEVERAL.format(first=first, second=second))
    if served is None:
        with pytest.raises(InputError, match="'b' name no component: are all of them ours"):
            known.serving(serve)
        return
    chosen = known.serving(serve)
    assert chosen.addresses == tuple(UnixAddress(f"/tmp/ipi_{name}") for name in served)
    assert len(chosen.all_addresses) == 2
    assert chosen.structures_per_step == len(served)
    with pytest.raises(InputError, match=r"--serve c: in\.xml has no <ffsocket> of that name"):
        known.serving(["c"])


@pytest.mark.parametrize(
    ("prefix", "address", "path"),
    [("/scratch/me/s_", "a", "/scratch/me/s_a"), ("s_", "a", "{cwd}/s_a"), ("", "a", "{cwd}/a"),
     ("", "/scratch/a", "/scratch/a"), ("/tmp/ipi_", "/a", "/tmp/ipi_/a")],
)  # fmt: skip
def test_sockets_are_where_i_pi_opens_them(tmp_path, monkeypatch, prefix, address, path):
    """i-PI puts the prefix before any name, and counts relative ones from where it runs."""
    monkeypatch.chdir(tmp_path)
    text = f"""<simulation sockets_prefix="{prefix}"><ffsocket mode="unix" name="a">
      <address>{address}</address></ffsocket></simulation>"""
    known = parse_input("in.xml", text)
    expected = path.format(cwd=tmp_path)
    assert known.addresses == (UnixAddress(expected),)
    root = ElementTree.fromstring(known.text)
    assert root.get("sockets_prefix") + root.findtext(".//address").strip() == expected
