import json
from pathlib import Path

import numpy as np
import pytest

from deltaserver.analysis.read.directory import find_runs, read_settings
from deltaserver.errors import DataError
from deltaserver.units import ATOMIC_TIME_FS, HARTREE_EV, KB_EV_PER_K
from tests.analysis.written import INPUT, POSITIONS, write_run

ROOT = Path(__file__).parents[3]
FRAMES = np.repeat(POSITIONS[None], 3, axis=0)


def test_a_run_and_what_its_input_says(tmp_path):
    directory = write_run(tmp_path / "warm", FRAMES, range(3), kelvin=250, timestep=0.25)
    (directory / "run.out").write_text("")
    (directory / "deltaserver.jsonl").write_text("")
    (run,) = find_runs([directory])
    assert run.label == "warm"
    assert run.beads == ((directory / "run.pos_0.xyz",),)
    assert run.properties == (directory / "run.out",)
    assert (run.temperature_k, run.timestep_fs, run.ensemble) == (250.0, 0.25, "nvt")
    assert run.log == directory / "deltaserver.jsonl"
    assert run.models is None


def test_a_sweep_in_the_order_of_temperatures(tmp_path):
    for kelvin in (100, 50, 300):
        write_run(tmp_path / "sweep" / f"{kelvin}K", FRAMES, range(3), kelvin=kelvin)
    runs = find_runs([tmp_path / "sweep"])
    assert [run.label for run in runs] == ["50K", "100K", "300K"]
    assert {run.group for run in runs} == {"sweep"}
    assert len(find_runs([tmp_path])) == 3


def test_backups_come_first_by_their_numbers(tmp_path):
    directory = write_run(tmp_path / "r", FRAMES, range(3))
    for name in ("#run.pos_0.xyz#0#", "#run.pos_0.xyz#10#", "#run.pos_0.xyz#2#.gz"):
        (directory / name).write_text("x")
    (directory / "#run.out#0#").write_text("x")
    (run,) = find_runs([directory])
    names = [path.name for path in run.beads[0]]
    assert names == [
        "#run.pos_0.xyz#0#", "#run.pos_0.xyz#2#.gz", "#run.pos_0.xyz#10#", "run.pos_0.xyz",
    ]  # fmt: skip
    assert [path.name for path in run.properties] == ["#run.out#0#"]


def test_beads_and_systems(tmp_path):
    directory = write_run(tmp_path / "r", FRAMES, range(3), beads=12)
    text = (directory / "run.pos_0.xyz").read_text()
    (directory / "run.pos_0.xyz").unlink()
    for k in range(12):
        (directory / f"run.pos_{k:02d}.xyz").write_text(text)
    (run,) = find_runs([directory])
    assert [pieces[0].name[-6:-4] for pieces in run.beads] == [f"{k:02d}" for k in range(12)]
    replicas = tmp_path / "remd"
    write_run(replicas, FRAMES, range(3))
    (replicas / "run.pos_0.xyz").unlink()
    systems = "".join(
        f'<system prefix="{k}_{t}K"><ensemble><temperature units="kelvin">{t}</temperature>'
        "</ensemble></system>"
        for k, t in enumerate((100, 200))
    )
    whole = INPUT.format(kelvin=1, timestep=0.5, beads=1)
    start, end = whole.index("  <system>"), whole.index("</simulation>")
    (replicas / "input.xml").write_text(whole[:start] + systems + whole[end:])
    for name in ("0_100K", "1_200K"):
        (replicas / f"{name}_run.pos_0.xyz").write_text(text)
        (replicas / f"{name}_run.out").write_text(text)
    found = find_runs([replicas])
    assert [(run.label, run.temperature_k) for run in found] == [
        ("remd 0_100K", 100.0), ("remd 1_200K", 200.0),
    ]  # fmt: skip
    assert found[1].properties[0].name == "1_200K_run.out"


def test_what_an_earlier_run_has_left_in_the_directory_is_not_of_this_one(tmp_path):
    """As of one with --replicas, or with more beads, set aside or not."""
    directory = write_run(tmp_path / "r", FRAMES, range(3), beads=2)
    text = (directory / "run.pos_0.xyz").read_text()
    for name in ("run.pos_1.xyz", "#run.pos_2.xyz#0#", "#run.pos_0.xyz#0#", "0_200K_run.pos_0.xyz"):
        (directory / name).write_text(text)
    (run,) = find_runs([directory])
    assert run.label == "r"
    assert run.n_systems == 1
    assert [[piece.name for piece in pieces] for pieces in run.beads] == [
        ["#run.pos_0.xyz#0#", "run.pos_0.xyz"], ["run.pos_1.xyz"],
    ]  # fmt: skip


TRAJECTORY = '<trajectory stride="{stride}" filename="{name}"> {what} </trajectory>'


def with_outputs(directory, outputs, beads=1):
    """A run with these trajectory outputs: (file name, quantity, stride)."""
    write_run(directory, FRAMES, range(3), beads=beads)
    path = directory / "input.xml"
    text = path.read_text()
    start, end = text.index("    <trajectory"), text.index("  </output>")
    more = "".join(TRAJECTORY.format(name=n, what=w, stride=s) for n, w, s in outputs)
    path.write_text(text[:start] + more + text[end:])
    content = (directory / "run.pos_0.xyz").read_text()
    (directory / "run.pos_0.xyz").unlink()
    for name, what, _ in outputs:
        numbers = [""] if "centroid" in what else [f"_{k}" for k in range(beads)]
        for number in numbers:
            quantity = what.split("{")[0].strip()
            (directory / f"run.{name}{number}.xyz").write_text(
                content.replace("positions", quantity)
            )
    (run,) = find_runs([directory])
    return [piece.name for pieces in run.beads for piece in pieces], run.remarks


@pytest.mark.parametrize("order", [1, -1])
@pytest.mark.parametrize("name", ["xc", "pos"])
def test_centroids_are_kept_apart_from_beads(tmp_path, order, name):
    outputs = [("pos", "positions{angstrom}", 10), (name, "x_centroid{angstrom}", 5)][::order]
    files, remarks = with_outputs(tmp_path / "r", outputs, beads=3)
    assert files == ["run.pos_0.xyz", "run.pos_1.xyz", "run.pos_2.xyz"]
    assert remarks == (
        f"the centroids in {name!r}, every 5 steps, are not used; the positions in 'pos', every "
        "10 steps, are",
    )


def test_centroids_alone_are_read_and_told(tmp_path):
    files, remarks = with_outputs(tmp_path / "r", [("xc", "x_centroid {angstrom}", 5)], beads=3)
    assert files == ["run.xc.xyz"]
    assert remarks == (
        "only the centroids of the beads are written: they spread less than the positions",
    )


@pytest.mark.parametrize("order", [1, -1])
def test_of_two_outputs_that_with_more_frames_is_used_and_named(tmp_path, order):
    outputs = [("pos", "positions{angstrom}", 100), ("fine", "positions", 2)][::order]
    files, remarks = with_outputs(tmp_path / "r", outputs)
    assert files == ["run.fine_0.xyz"]
    assert remarks == (
        "the positions in 'pos', every 100 steps, are not used; the positions in 'fine', every 2 "
        "steps, are",
    )


def test_the_record_tells_models_and_how_it_ended(tmp_path):
    directory = write_run(tmp_path / "r", FRAMES, range(3))
    record = {
        "format": "deltaserver-run/1", "models": str(ROOT / "models" / "c60"),
        "component": "full", "status": "blown up", "reason": "a bond broke",
    }  # fmt: skip
    (directory / "run.json").write_text(json.dumps(record))
    (run,) = find_runs([directory])
    assert run.models == ROOT / "models" / "c60"
    assert (run.component, run.status, run.reason) == ("full", "blown up", "a bond broke")
    (directory / "run.json").write_text("nonsense")
    assert find_runs([directory])[0].models is None


def test_the_log_tells_the_models(tmp_path):
    directory = write_run(tmp_path / "r", FRAMES, range(3))
    event = {"event": "loaded", "directory": str(ROOT / "models" / "c60")}
    (directory / "deltaserver.jsonl").write_text(json.dumps(event) + "\nhalf a li")
    assert find_runs([directory])[0].models == ROOT / "models" / "c60"
    event["directory"] = "/no/longer/there"
    (directory / "deltaserver.jsonl").write_text(json.dumps(event) + "\n")
    assert find_runs([directory])[0].models is None


def test_files_are_pieces_of_one_run(tmp_path):
    directory = write_run(tmp_path / "r", FRAMES, range(3))
    path = directory / "run.pos_0.xyz"
    (run,) = find_runs([path])
    assert (run.beads, run.temperature_k) == (((path,),), None)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("nonsense <simulation", "not readable as XML"),
        ("<other>a <simulation</other>", "not readable as XML"),
        ("<input/>", "the root is <input>"),
        (
            '<simulation><timestep units="fortnight">1</timestep></simulation>',
            "<timestep>: 'fortnight' is no unit of time that i-PI knows",
        ),
    ],
)
def test_inputs_that_are_none(tmp_path, text, message):
    path = tmp_path / "input.xml"
    path.write_text(text)
    with pytest.raises(DataError, match=message):
        read_settings(path)


def test_atomic_units_and_placeholders(tmp_path):
    """RESTART files have atomic units; templates of systems have names for numbers."""
    path = tmp_path / "input.xml"
    path.write_text(
        "<simulation><system><timestep>20.0</timestep><ensemble><temperature> 1e-3 </temperature>"
        "</ensemble></system><system prefix='a'><ensemble><temperature>TEMP</temperature>"
        "</ensemble></system></simulation>"
    )
    found = read_settings(path)
    assert found.timestep_fs == pytest.approx(20.0 * ATOMIC_TIME_FS)
    assert found.temperatures_k == {"": pytest.approx(1e-3 * HARTREE_EV / KB_EV_PER_K)}
    assert found.prefix == "i-pi"


def test_nothing_there(tmp_path):
    with pytest.raises(DataError, match="no run in it"):
        find_runs([tmp_path])
    with pytest.raises(DataError, match="no such file or directory"):
        find_runs([tmp_path / "none"])
    write_run(tmp_path, FRAMES, range(3))
    (tmp_path / "run.pos_0.xyz").unlink()
    with pytest.raises(DataError, match="no run in it"):
        find_runs([tmp_path])
