"""Who may import whom, and where numbers may stand."""

import ast
import functools
import subprocess
import sys
from pathlib import Path

import pytest

PACKAGE = Path(__file__).parents[1] / "deltaserver"
MODULES = sorted(PACKAGE.rglob("*.py"))
PURE_ANALYSIS = (
    "distributions",
    "free_energy",
    "msad",
    "rotation",
    "statistics",
    "survey",
    "thermo",
    "variables",
)
PURE = [
    *(PACKAGE / "model").glob("*.py"),
    *(
        PACKAGE / "serve" / f"{name}.py"
        for name in ("wire", "protocol", "answer", "recipe", "blowup")
    ),
    *(PACKAGE / "analysis" / f"{name}.py" for name in PURE_ANALYSIS),
    *(path for path in (PACKAGE / "textio").glob("*.py") if path.name != "files.py"),
    PACKAGE / "errors.py",
    PACKAGE / "units.py",
]
IMPURE = {"socket", "selectors", "logging", "structlog", "os", "click", "subprocess", "threading"}
INDEPENDENT = ("serve", "training", "analysis")
SHARED = ("textio", "statistics")  # below everything that reads files or counts
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


def imports(path):
    """Yield the full name of everything that a module imports, also inside functions."""
    for node in nodes(path):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: relative import"
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


@pytest.mark.parametrize("path", PURE, ids=name_of)
def test_pure_modules_do_no_io(path):
    assert not {name.split(".")[0] for name in imports(path)} & IMPURE


def test_pathlib_is_for_the_modules_that_read_model_directories():
    users = {path.name for path in PURE if "pathlib.Path" in set(imports(path))}
    assert users <= {
        "files.py",
        "manifest.py",
        "sgdml.py",
        "composite.py",
        "archive.py",
        "check.py",
        "structures.py",
        "xyz_frames.py",
    }


@pytest.mark.parametrize("path", MODULES, ids=name_of)
def test_layers(path):
    parts = path.relative_to(PACKAGE).parts
    own = parts[0] if len(parts) > 1 else None
    imported = {name.split(".")[1] for name in imports(path) if name.startswith("deltaserver.")}
    if own in INDEPENDENT:
        assert not imported & (set(INDEPENDENT) - {own})
    if own == "model":
        assert not imported & {*INDEPENDENT, "cli", "ase"}
    if own in SHARED:
        names = {name for name in imports(path) if name.startswith("deltaserver.model")}
        assert all(name.startswith("deltaserver.molecules.elements") for name in names)
        assert imported <= {"errors", "units", "model", own}
    if path.name in ("errors.py", "units.py"):
        assert imported <= {"errors"}


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
    import math

    return round(math.log10(abs(ratio)))


def test_the_check_for_factors_finds_them(tmp_path):
    for text in ("x = 27.211386", "x = 4184.0", "x = 1 / 0.0433641", "x = 1.8897261"):
        path = tmp_path / "bad.py"
        path.write_text(text)
        with pytest.raises(AssertionError, match="line 1"):
            test_conversion_factors_stand_in_one_place(path)


def test_serving_loads_nothing_heavy():
    heavy = ["torch", "ase", "scipy", "sgdml", "matplotlib", "networkx", "ipi", "prometheus_client"]
    heavy += ["chemiscope"]
    code = f"import sys, deltaserver.cli.app; print([m for m in {heavy} if m in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
