"""What import-linter cannot hold (its contracts are in pyproject.toml): numbers, sizes, weight."""

import ast
import collections
import functools
import math
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PACKAGE = ROOT / "deltaserver"
MODULES = sorted(PACKAGE.rglob("*.py"))
MOST_FILES = 14  # in a folder: more are no room any longer
FACTORS = (
    27.2113,
    0.529177,
    23.06,
    4.184,
    627.5,
    96.485,
    0.043364,
    1.602176,
    6.02214,
    8.617,
    1.88972,
)


def name_of(path):
    return str(path.relative_to(PACKAGE.parent))


@functools.cache
def nodes(path):
    """Everything that a module is made of."""
    return tuple(ast.walk(ast.parse(path.read_text(encoding="utf-8"))))


def test_imports_name_modules_in_full():
    for path in MODULES:
        levels = {node.level for node in nodes(path) if isinstance(node, ast.ImportFrom)}
        assert levels <= {0}, f"{path}: relative import"


def test_no_folder_is_a_heap():
    files = collections.Counter(path.parent for path in [*MODULES, *(ROOT / "tests").rglob("*.py")])
    assert not {str(folder): n for folder, n in files.items() if n > MOST_FILES}


@pytest.mark.parametrize("path", [p for p in MODULES if p.name != "units.py"], ids=name_of)
def test_conversion_factors_stand_in_one_place(path):
    for node in nodes(path):
        if isinstance(node, ast.Constant) and isinstance(node.value, float) and node.value:
            for factor in FACTORS:
                for value in (node.value, 1.0 / node.value):
                    mantissa = value / 10.0 ** round_down(value / factor)
                    assert abs(mantissa / factor - 1.0) > 2e-4, f"line {node.lineno}: {node.value}"


def round_down(ratio):
    """The power of ten nearest to a ratio, so that 4184 counts as 4.184."""
    return round(math.log10(abs(ratio)))


def test_the_check_for_factors_finds_them(tmp_path):
    for text in ("x = 27.211386", "x = 4184.0", "x = 1 / 0.0433641", "x = 1.8897261"):
        path = tmp_path / "bad.py"
        path.write_text(text)
        with pytest.raises(AssertionError, match="line 1"):
            test_conversion_factors_stand_in_one_place(path)


def test_serving_loads_nothing_heavy():
    heavy = ["torch", "ase", "scipy", "sgdml", "matplotlib", "networkx", "ipi", "prometheus_client"]
    heavy += ["chemiscope", "numba"]
    code = f"import sys, deltaserver.cli.app; print([m for m in {heavy} if m in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
