import json
from dataclasses import replace

import pytest

from deltaserver.errors import InputError
from deltaserver.simulate.record import Restart, RunRecord, read_record, write_record

RECORD = RunRecord("/models/c60", "full", "nvt", (100.0,), 0.5, 7, 1000, "c60_nvt",
                   restarts=(Restart(400, "RESTART"),))  # fmt: skip


def test_what_is_written_is_read(tmp_path):
    assert read_record(tmp_path) is None
    write_record(RECORD, tmp_path)
    assert read_record(tmp_path) == RECORD
    done = replace(RECORD, status="blown up", step=512, reason="a bond", frame="blow_up.xyz")
    write_record(done, tmp_path)
    assert read_record(tmp_path) == done
    assert [path.name for path in tmp_path.iterdir()] == ["run.json"]
    assert json.loads((tmp_path / "run.json").read_text())["format"] == "deltaserver-run/1"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("{", "not readable as JSON"),
        ("[]", "expected a record of format"),
        ('{"format": "deltaserver-run/9"}', "expected a record of format"),
        ('{"format": "deltaserver-run/1"}', "not a record of ours"),
    ],
)
def test_records_that_are_not_ours(tmp_path, text, message):
    (tmp_path / "run.json").write_text(text)
    with pytest.raises(InputError, match=message):
        read_record(tmp_path)


def test_an_unknown_status(tmp_path):
    write_record(RECORD, tmp_path)
    path = tmp_path / "run.json"
    path.write_text(path.read_text().replace('"running"', '"asleep"'))
    with pytest.raises(InputError, match="asleep"):
        read_record(tmp_path)


def test_a_directory_that_cannot_be_written(tmp_path):
    with pytest.raises(InputError, match=r"run.json: no such file"):
        write_record(RECORD, tmp_path / "absent")
