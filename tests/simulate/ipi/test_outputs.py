"""Which files an input writes, by name, and which of them tells most of the run."""

from __future__ import annotations

import pytest

from deltaserver.simulate.ipi.input import parse_input

SOCKET = "<ffsocket mode='unix' name='d'><address>a</address></ffsocket>"


def known(output: str, prefix: str = "run", rest: str = "<system prefix='s1'/><system/>"):
    text = f"<simulation><output prefix='{prefix}'>{output}</output>{SOCKET}{rest}</simulation>"
    return parse_input("in.xml", text)


def written(directory, ipi_input) -> set[str]:
    return {path.name for path, _ in ipi_input.written(directory)}


def test_files_are_known_by_their_whole_names(tmp_path):
    theirs = {"s1_run.out", "run.out", "run.pos_0.xyz", "s1_run.pos_11.xyz", "run.c.xyz",
              "run.f_3", "run.ase_0.extxyz", "run.chk", "run.chk_5", "run.remd_idx"}  # fmt: skip
    others = {"run.json", "run.lock", "run.out.bak", "run.pos_0.xyz~", "run.pos_0.pdb", "run.sh",
              "s2_run.out", "s1_run.chk", "xrun.out", "run.outs", "#run.out#0#"}  # fmt: skip
    for name in theirs | others:
        (tmp_path / name).write_text("")
    ipi_input = known(
        "<properties filename='out'>[step]</properties><trajectory filename='pos'>positions"
        "</trajectory><trajectory filename='c'>x_centroid</trajectory><trajectory filename='f'>"
        "extras</trajectory><trajectory filename='ase' format='ase'>positions</trajectory>"
        "<checkpoint filename='chk'/>",
        rest="<smotion mode='remd'><remd/></smotion><system prefix='s1'/><system/>",
    )
    assert written(tmp_path, ipi_input) == theirs


def test_without_a_prefix_only_what_is_named(tmp_path):
    for name in ("out", "pos_0.xyz", "input.xml", "notes", "run.json"):
        (tmp_path / name).write_text("")
    output = "<properties/><trajectory filename='pos'>positions</trajectory>"
    assert written(tmp_path, known(output, "", "<system/>")) == {"out", "pos_0.xyz"}


def test_i_pi_s_default_outputs(tmp_path):
    for name in ("i-pi.md", "i-pi.pos_0.xyz", "i-pi.checkpoint", "i-pi.log"):
        (tmp_path / name).write_text("")
    ipi_input = parse_input("in.xml", f"<simulation>{SOCKET}<system/></simulation>")
    assert written(tmp_path, ipi_input) == {"i-pi.md", "i-pi.pos_0.xyz", "i-pi.checkpoint"}
    assert ipi_input.properties_steps == (0, 10)


@pytest.mark.parametrize(
    ("columns", "expected"),
    [
        (("[step, time]", "[conserved{electronvolt}, step]"), "b"),
        (("[step]", "[conserved]"), "b"),
        (("[time]", "[step]"), "b"),
        (("[time]", "[potential]"), "a"),
        (("[time{step}]", "[step, conserved{kilocal/mol}]"), "b"),
    ],
)
def test_what_a_run_is_followed_by(columns, expected):
    output = "".join(
        f"<properties filename='{name}' stride='5'>{text}</properties>"
        for name, text in zip("ab", columns, strict=True)
    )
    assert known(output).properties == expected


@pytest.mark.parametrize(("first", "expected"), [(0, 0), (1, 5), (5, 10), (7, 10)])
def test_the_first_line_of_a_run_that_continues_another(first, expected):
    rest = f"<step>{first}</step><system/>"
    output = "<properties stride='5'>[conserved]</properties>"
    assert known(output, rest=rest).properties_steps == (expected, 5)
