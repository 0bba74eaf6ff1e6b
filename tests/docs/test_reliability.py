"""docs/reliability.md names, for each of its faults, tests that exist; the unit file is a unit."""

import ast
import configparser
import re
import shlex
from pathlib import Path

import pytest

from deltaserver import errors
from deltaserver.cli.app import app
from deltaserver.serve.watchers.watch import Condition

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs" / "reliability.md").read_text(encoding="utf-8")
ROWS = [
    [cell.strip() for cell in line.strip("|").split(" | ")]
    for line in PAGE.partition("## The fault matrix")[2].splitlines()
    if re.match(r"\| \d+ \|", line)
]


def functions(path):
    tree = ast.parse((ROOT / "tests" / path).read_text(encoding="utf-8"))
    return {node.name for node in ast.walk(tree) if isinstance(node, ast.FunctionDef)}


def test_the_matrix_has_its_rows():
    assert len(ROWS) >= 40
    assert [int(row[0]) for row in ROWS] == list(range(1, len(ROWS) + 1))
    assert len({row[1] for row in ROWS}) == len(ROWS)
    assert all(len(row) == 4 and all(row) for row in ROWS)


@pytest.mark.parametrize("row", ROWS, ids=lambda row: row[0])
def test_every_row_is_proved_by_tests_that_exist(row):
    named = re.findall(r"`([\w/]+\.py)::(test_\w+)`", row[3])
    assert named
    assert len(named) == row[3].count("::")
    for path, name in named:
        assert name in functions(path), f"{path} has no {name}"


def test_the_exit_codes_are_the_program_s():
    table = PAGE.partition("| exit code | meaning |")[2].partition("\n\n")[0]
    told = {int(code): word for code, word in re.findall(r"^\| (\d) \| (\w+)", table, re.M)}
    codes = {name: value for name, value in vars(errors).items() if name.startswith("EXIT_")}
    assert set(codes.values()) - {errors.EXIT_INTERRUPTED} == set(told)
    assert told[errors.EXIT_INPUT] == "bad"
    assert told[errors.EXIT_GUARD] == "refused"


def test_the_options_named_exist():
    options = {name for parameter in app.params for name in parameter.opts}
    named = set(re.findall(r"`(--[a-z-]+)", PAGE))
    assert named - options == set()
    assert {"--reconnect", "--reconnect-limit", "--metrics-port", "--health-file"} <= named


def test_the_states_named_are_all_there_are():
    for condition in Condition:
        assert f"`{condition.value}`" in PAGE


def test_the_unit_file_starts_the_daemon_with_options_that_exist():
    unit = configparser.ConfigParser(interpolation=None, strict=True)
    unit.optionxform = str
    unit.read(ROOT / "docs" / "deltaserver.service")
    assert {"Unit", "Service", "Install"} == set(unit.sections())
    service = unit["Service"]
    assert service["Type"] == "notify"
    assert service["RestartPreventExitStatus"].split() == ["2", "4"]
    command = shlex.split(service["ExecStart"].replace("\\\n", " "))
    options = {name for parameter in app.params for name in parameter.opts}
    assert {word for word in command if word.startswith("--")} <= options
