"""Every message that the package raises, read from its source, and the entries that explain it."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache, partial
from pathlib import Path

import click

from deltaserver import errors

PACKAGE = Path(__file__).parents[2] / "deltaserver"
ANY = "…"  # what stands for a value, in templates and in the documentation
# Raised for us alone (a bug shows as "internal error"), or caught before a user sees it.
NOT_FOR_USERS = {"AssertionError", "RuntimeError", "TypeError", "KeyError", "NotImplementedError"}
NOT_FOR_USERS |= {"AttributeError"}
OTHERS = {"fail", "BadParameter", "UsageError", "ClickException", "BadZipFile"}
# Modules whose functions and constants word what another one raises, and what that is.
SPEAKERS = {
    "trust/diagnosis": "GuardError",
    "trust/structure": "GuardError",
    "trust/evaluation": "GuardError",
}
SILENT = {"groups/representations"}  # caught by fourier, which does without
WARNING = "warning"
ENOUGH_LETTERS = 18


@dataclass(frozen=True)
class Message:
    """One message: its text with … for values, what raises it, and where."""

    text: str
    kind: str  # the exception's name, or "warning"
    where: str


def room_and_name(path: Path) -> str:
    """Return the last folder and the module's name: names alone stand in several rooms."""
    return f"{path.parent.name}/{path.stem}"


def _name(node: ast.AST | None) -> str:
    if isinstance(node, ast.Attribute):
        return node.attr
    return node.id if isinstance(node, ast.Name) else ""


@cache
def _trees() -> dict[Path, ast.Module]:
    return {path: ast.parse(path.read_text(encoding="utf-8")) for path in PACKAGE.rglob("*.py")}


@cache
def _bases() -> dict[str, str]:
    """Return the bases of the exceptions that modules define for themselves, by name."""
    return {
        node.name: _name(node.bases[0])
        for tree in _trees().values()
        for node in ast.walk(tree)
        if isinstance(node, ast.ClassDef) and node.name.endswith("Error") and node.bases
    }


@cache
def messages() -> list[Message]:
    """Return every message of the package."""
    trees = _trees()
    spoken = {name for tree in trees.values() for name in _own_words(tree)}
    found = {
        message
        for path, tree in trees.items()
        for message in messages_of(tree, path.relative_to(PACKAGE.parent), spoken)
        if room_and_name(path) not in SILENT
    }
    return sorted(found, key=lambda message: message.where)


def messages_of(tree: ast.AST, path: Path, spoken: set[str]) -> Iterator[Message]:
    """Yield the messages of one module; ``spoken`` are exceptions that word themselves."""
    makers = {
        node.name: _name(node.returns)
        for node in ast.walk(tree)
        if isinstance(node, ast.FunctionDef) and _name(node.returns).endswith("Error")
    }
    if any("Checker" in map(_name, getattr(node, "bases", ())) for node in ast.walk(tree)):
        makers["error"] = "InputError"  # that of textio.strict_yaml.Checker
    named = _named_texts(tree)
    told = partial(_told, named=named, path=path)
    if room_and_name(path) in SPEAKERS:
        for name, wordings in named.items():
            for text in wordings:
                if len(re.findall("[A-Za-z]", text)) >= ENOUGH_LETTERS:
                    worded = re.sub(f"{ANY}+", ANY, text.replace("{}", ANY))
                    yield Message(worded, SPEAKERS[room_and_name(path)], f"{path}: {name}")
    for node in ast.walk(tree):
        if isinstance(node, ast.ClassDef) and node.name in spoken:
            for call in _super_calls(node):
                yield from told(call, node.name)
        elif isinstance(node, ast.Call):
            name = _name(node.func)
            if name in makers:  # ManifestReader.error and the like: they put the place first
                yield from told(node, makers[name], prefix=f"{ANY}: ")
            elif name in OTHERS or (name.endswith("Error") and name not in spoken | NOT_FOR_USERS):
                yield from told(node, "BadParameter" if name == "fail" else name)
            elif name == "problem":  # of an analysis, that raises it at the end
                yield from told(node, "DataError")
            elif name in ("warn", "warning"):
                yield from told(node, WARNING)


def _told(
    call: ast.Call, kind: str, prefix: str = "", *, named: dict[str, list[str]], path: Path
) -> Iterator[Message]:
    if not call.args:
        return
    first = call.args[0]
    name = _name(first.func if isinstance(first, ast.Call) else first)
    for text in named.get(name) or texts(first):
        # What has no words of its own passes another's on.
        if re.search(r"[a-z]{2}", text) and text != "warning":
            yield Message(re.sub(f"{ANY}+", ANY, prefix + text), kind, f"{path}:{call.lineno}")


def _named_texts(tree: ast.AST) -> dict[str, list[str]]:
    """Return the texts that a module's functions return and its variables hold, by name."""
    named: dict[str, list[str]] = {}
    for node in ast.walk(tree):
        if isinstance(node, ast.FunctionDef):
            for inner in ast.walk(node):
                if isinstance(inner, ast.Return) and inner.value:
                    _keep(named, node.name, inner.value)
        elif isinstance(node, ast.Assign) and isinstance(node.targets[0], ast.Name):
            _keep(named, node.targets[0].id, node.value)
    return named


def _keep(named: dict[str, list[str]], name: str, value: ast.expr) -> None:
    if isinstance(value, (ast.Constant, ast.JoinedStr, ast.BinOp, ast.IfExp)):
        named.setdefault(name, []).extend(text for text in texts(value) if " " in text)


def texts(node: ast.expr) -> list[str]:
    """Return what an expression may read, with … for values."""
    if isinstance(node, ast.Constant):
        return [str(node.value)]
    if isinstance(node, ast.JoinedStr):
        parts = [str(v.value) if isinstance(v, ast.Constant) else ANY for v in node.values]
        return ["".join(parts)]
    if isinstance(node, ast.BinOp) and isinstance(node.op, ast.Add):
        return [left + right for left in texts(node.left) for right in texts(node.right)]
    if isinstance(node, ast.IfExp):
        return texts(node.body) + texts(node.orelse)
    return [ANY]


def _own_words(tree: ast.AST) -> Iterator[str]:
    """Yield the exceptions that word their message in their constructor."""
    for node in ast.walk(tree):
        if isinstance(node, ast.ClassDef) and node.name.endswith("Error"):
            said = [text for call in _super_calls(node) for text in texts(call.args[0])]
            if any(text != ANY for text in said):  # else it takes its message as it comes
                yield node.name


def _super_calls(node: ast.ClassDef) -> list[ast.Call]:
    return [
        call
        for call in ast.walk(node)
        if isinstance(call, ast.Call)
        and _name(call.func) == "__init__"
        and isinstance(call.func, ast.Attribute)
        and isinstance(call.func.value, ast.Call)
        and _name(call.func.value.func) == "super"
    ]


def exit_code(kind: str) -> int | None:
    """Return the exit code of an exception's name; None where it depends on who catches it."""
    while kind in _bases() and not hasattr(errors, kind):
        kind = _bases()[kind]
    if hasattr(errors, kind):
        return int(getattr(errors, kind).exit_code)
    return errors.EXIT_INPUT if hasattr(click, kind) else None


@cache
def _pieces(pattern: str) -> list[str]:
    return pattern.split(ANY)


@cache
def _expression(pattern: str) -> re.Pattern[str]:
    return re.compile(".*".join(map(re.escape, _pieces(pattern))), re.DOTALL)


@cache
def _is_vague(pattern: str) -> bool:
    return len(re.findall(r"[A-Za-z]", pattern)) < ENOUGH_LETTERS


@dataclass(frozen=True)
class Entry:
    """One row of the documentation: a message or a pattern of messages, and what to do."""

    pattern: str
    heading: str
    advice: str

    def explains(self, text: str) -> bool:
        """Whether the message is this one; … in the pattern is any text."""
        pieces = _pieces(self.pattern)  # which tell most of them apart much sooner
        if not text.startswith(pieces[0]) or not all(piece in text for piece in pieces):
            return False
        return bool(_expression(self.pattern).fullmatch(text))

    def covers(self, template: str) -> bool:
        """Whether the template is explained: a vague pattern explains only what it spells out."""
        if self.pattern == template:
            return True
        return not _is_vague(self.pattern) and self.explains(template)


def entries(page: str) -> list[Entry]:
    """Read the rows ``| `message` <br> `message` | advice |`` of the page, with their heading."""
    found, heading = [], ""
    for line in page.splitlines():
        if line.startswith("## "):
            heading = line.removeprefix("## ")
        elif line.startswith("| `"):
            first, advice = re.split(r" \| ", line.strip("| "), maxsplit=1)
            spans = re.findall(r"``? ?(.+?) ?``?(?=<br>|$)", first.strip())
            found += [Entry(span, heading, advice.strip()) for span in spans]
    return found
