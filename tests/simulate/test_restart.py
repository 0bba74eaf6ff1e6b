import json

import pytest

from deltaserver.errors import InputError
from deltaserver.simulate.ipi.input import parse_input
from deltaserver.simulate.restart import continued_input, cut_log, cut_outputs, find_restart

TEXT = """<simulation><output prefix="run"><checkpoint filename="chk"/>
<properties stride="10" filename="out">[time, step]</properties>
<trajectory filename="pos">positions</trajectory>
<trajectory filename="energy">extras</trajectory>
<trajectory filename="bin" format="bin">positions</trajectory></output>
<smotion mode="remd"><remd><stride>1</stride></remd></smotion>
<total_steps>{total}</total_steps>
<ffsocket mode="unix" name="d"><address>{address}</address></ffsocket>
<system><initialize nbeads="1"/><forces><force forcefield="d"/></forces></system></simulation>"""
INPUT = parse_input("input.xml", TEXT.format(total=100, address="new"))


def state(step, total=100):
    text = TEXT.format(total=total, address="old")
    return f"<!-- i-PI -->\n{text.replace('<total', f'<step>{step}</step><total')}"


def test_the_newest_whole_state_is_found(tmp_path):
    assert find_restart(tmp_path, INPUT) is None
    (tmp_path / "RESTART").write_text(state(30))
    (tmp_path / "run.chk").write_text(state(60))
    (tmp_path / "run.chk_3").write_text(state(50))
    (tmp_path / "run.chk_4").write_text(state(90)[:-20])  # cut short by a kill
    (tmp_path / "#run.chk#0#").write_text(state(95))
    (tmp_path / "run.chkother").write_text(state(95))
    found = find_restart(tmp_path, INPUT)
    assert (found.path.name, found.step) == ("run.chk", 60)


def test_the_input_gives_steps_and_sockets(tmp_path):
    (tmp_path / "RESTART").write_text(state(30, total=40))
    text = continued_input(find_restart(tmp_path, INPUT), INPUT)
    again = parse_input("restart.xml", text)
    assert again.total_steps == 100
    assert again.addresses == INPUT.addresses
    assert "<step>30</step>" in text


def test_nothing_left_to_do(tmp_path):
    (tmp_path / "RESTART").write_text(state(100))
    with pytest.raises(InputError, match="has all its 100 steps"):
        continued_input(find_restart(tmp_path, INPUT), INPUT)


def properties(steps):
    head = "# column   1     --> time{picosecond} : t\n# column   2     --> step : s\n"
    return head + "".join(f"  {0.5 * s:.8e}  {s:.8e}\n" for s in steps)


def frames(steps):
    return "".join(
        f"2\n# CELL(abcABC): 1 1 1 90 90 90  Step: {s:10d}  Bead: 0 positions{{angstrom}}\n"
        "H 0 0 0\nH 0 0 1\n" for s in steps
    )  # fmt: skip


def extras(steps):
    return "".join(f" #EXTRAS(energy)# Step:  {s:10d} \n  1.0\n" for s in steps)


CASES = {"run.out": properties, "run.pos_0.xyz": frames, "run.energy_0": extras}


@pytest.mark.parametrize("name", CASES)
@pytest.mark.parametrize("torn", [0, 1, 7])
def test_outputs_are_cut_back_to_the_state(tmp_path, name, torn):
    make = CASES[name]
    whole = make(range(0, 101, 10))
    (tmp_path / name).write_text(whole[: len(whole) - torn])
    cut = cut_outputs(tmp_path, INPUT, 60)
    assert (tmp_path / name).read_text() == make(range(0, 61, 10))
    assert cut == {name: len(whole) - torn - len(make(range(0, 61, 10)))}
    assert cut_outputs(tmp_path, INPUT, 60) == {}


@pytest.mark.parametrize("name", CASES)
@pytest.mark.parametrize("torn", [1, 4])
def test_a_record_that_a_kill_cut_short_goes_too(tmp_path, name, torn):
    make = CASES[name]
    whole = make((0, 10, 20))
    (tmp_path / name).write_text(whole[: len(whole) - torn])
    cut_outputs(tmp_path, INPUT, 500)
    assert (tmp_path / name).read_text() == make((0, 10))


def test_swaps_are_numbered_from_the_step_before(tmp_path):
    (tmp_path / "run.remd_idx").write_text("         9     1     0\n        10     0     1\n")
    cut_outputs(tmp_path, INPUT, 10)
    assert (tmp_path / "run.remd_idx").read_text() == "         9     1     0\n"


def test_what_is_not_understood_is_left_alone(tmp_path):
    for name, content in (("run.bin", b"\x00\xff"), ("run.chk", b"<simulation/>"),
                          ("run.notes.xyz", b"1\nno step here\nH 0 0 0\n")):  # fmt: skip
        (tmp_path / name).write_bytes(content)
    (tmp_path / "other.out").write_text(properties((70,)))
    assert cut_outputs(tmp_path, INPUT, 10) == {}


def test_the_log_is_cut_by_structure(tmp_path):
    log = tmp_path / "log"
    assert cut_log(log, 5) == 0
    events = [{"event": "loaded"}, *({"event": "step", "seq": n} for n in range(8))]
    lines = [json.dumps(event) + "\n" for event in events]
    log.write_text("".join(lines) + '{"event": "st')
    cut_log(log, 5)
    assert log.read_text() == "".join(lines[:6])
