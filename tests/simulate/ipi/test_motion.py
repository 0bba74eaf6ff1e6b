"""What an input does, and how many structures a step of it sends."""

from __future__ import annotations

import xml.etree.ElementTree as ElementTree

import pytest

from deltaserver.errors import InputError
from deltaserver.simulate.ipi.input import parse_input
from deltaserver.simulate.ipi.motion import is_conserved, is_dynamics, is_even

DYNAMICS = "<motion mode='dynamics'><dynamics mode='nvt'/></motion>"


def system(motion: str, rest: str = "") -> ElementTree.Element:
    return ElementTree.fromstring(f"<simulation>{rest}<system>{motion}</system></simulation>")


@pytest.mark.parametrize(
    ("motion", "dynamics", "conserved"),
    [
        (DYNAMICS, True, True),
        ("<motion mode='constrained_dynamics'/>", True, True),
        ("<motion mode='driven_dynamics'/>", True, False),
        (f"<motion mode='multi'>{DYNAMICS}<motion mode='t_ramp'/></motion>", True, True),
        (f"<motion mode='multi'>{DYNAMICS}<motion mode='p_ramp'/></motion>", True, False),
        (f"<motion mode='multi'>{DYNAMICS}<motion mode='atomswap'/></motion>", False, False),
        *(
            (f"<motion mode='{mode}'/>", False, False)
            for mode in ("minimize", "neb", "string", "vibrations", "normalmodes", "instanton",
                         "replay", "scp", "al-kmc", "alchemy", "planetary", "dummy")
        ),
    ],
)  # fmt: skip
def test_what_moves_in_time_and_what_is_conserved(motion, dynamics, conserved):
    assert is_dynamics(system(motion)) is dynamics
    assert is_conserved(system(motion)) is conserved
    assert is_even(system(motion), ["a"]) is dynamics


def test_biased_dynamics_conserve_nothing():
    root = system(DYNAMICS, "<smotion mode='metad'><metad/></smotion>")
    assert is_dynamics(root)
    assert not is_conserved(root)
    root = system(DYNAMICS, "<smotion mode='remd'><remd/></smotion>")
    assert is_conserved(root)


def test_steps_of_uneven_numbers_of_structures():
    assert not is_even(system("<motion mode='dynamics'><dynamics mode='sc'/></motion>"), ["a"])
    rotated = "<ffrotations name='r'><ffsocket name='a'/></ffrotations>"
    assert not is_even(system(DYNAMICS, rotated), ["a"])
    assert is_even(system(DYNAMICS, rotated), ["b"])


SOCKETS = "".join(
    f"<ffsocket name='{n}' mode='unix'><address>{n}</address></ffsocket>" for n in "ab"
)


def per_step(forces: str, served: tuple[str, ...] = (), n_beads: int = 8, rest: str = "") -> int:
    text = f"""<simulation>{SOCKETS}{rest}<system><initialize nbeads="{n_beads}"/>
      <forces>{forces}</forces><motion mode="dynamics"><dynamics><nmts>[1, 3]</nmts></dynamics>
      </motion></system></simulation>"""
    return parse_input("in.xml", text).serving(served or ("a", "b")).structures_per_step


@pytest.mark.parametrize(
    ("forces", "served", "expected"),
    [
        ("<force forcefield='a'/>", (), 8),
        ("<force forcefield='a'/><force forcefield='b' nbeads='2'/>", (), 10),
        ("<force forcefield='a'/><force forcefield='b' nbeads='20'/>", (), 16),
        ("<force forcefield='a'/><force forcefield='b'/>", ("b",), 8),
        ("<force forcefield='a' weight='0'/><force forcefield='b'/>", (), 8),
        ("<force forcefield='a' nbeads='1'><mts_weights>[1,0]</mts_weights></force>"
         "<force forcefield='b'><mts_weights>[0,1]</mts_weights></force>", (), 1 + 8 * 3),
    ],
)  # fmt: skip
def test_structures_of_a_step(forces, served, expected):
    assert per_step(forces, served) == expected


def test_a_committee_asks_each_of_its_members():
    text = f"""<simulation><ffcommittee name="c">{SOCKETS}</ffcommittee>
      <system><initialize nbeads="2"/><forces><force forcefield="c"/></forces></system>
      </simulation>"""
    known = parse_input("in.xml", text)
    assert known.structures_per_step == 4
    assert known.serving(["a"]).structures_per_step == 2


def test_a_number_of_beads_that_is_none():
    with pytest.raises(InputError, match="nbeads is 'two'"):
        per_step("<force forcefield='a' nbeads='two'/>")
