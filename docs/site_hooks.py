"""What the site has beyond docs/: other files of the repository, and pages made from the code.

Pages link to each other as they stand in the repository, so that they read on any forge; here
links are turned to where the site has the target. The options come from the click commands, so
that they cannot be out of date.
"""

from __future__ import annotations

import html
import os
import posixpath
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import click
from mkdocs.structure.files import File, Files, InclusionLevel

from deltaserver.cli.app import app

ROOT = Path(__file__).parents[1]
DOCS = "docs/"
INDEX = "README.md"  # the site's first page
LINK = re.compile(r"(?<=\]\()(?![a-z]+:|#)([^)\s#]+)(#[^)\s]*)?(?=\))")
ROLE = re.compile(r":(?:meth|class|func|mod|attr|data|exc):(<code>)~?")
OPTIONS_MARK = "<!-- options -->"
WIDTH = 96  # of the usage line


def on_files(files: Files, config: Any) -> Files:
    """Add the pages outside docs/ and whatever any page links to."""
    pages = [ROOT / INDEX, *ROOT.glob("C*.md"), *ROOT.glob("data/README.md")]
    pages += sorted(ROOT.glob("models/*/README.md"))
    known = {file.src_uri for file in files}
    linked = [target for page in [*pages, *ROOT.glob("docs/*.md")] for target in _targets(page)]
    for path in dict.fromkeys([*pages, *linked]):
        uri = _site_uri(path)
        if uri not in known and path.is_file():
            known.add(uri)
            files.append(_file(uri, path, config))
    return files


def on_page_markdown(markdown: str, page: Any, config: Any, files: Files) -> str:
    """Turn links to where the site has their targets; put in what is made from the code."""
    here = page.file.src_uri
    source = _repository_path(here)

    def turned(match: re.Match[str]) -> str:
        target = (source.parent / match[1]).resolve()
        if target.is_dir():  # the site has no lists of files
            return "#" if not match[2] else match[2]
        uri = _site_uri(target)
        return posixpath.relpath(uri, posixpath.dirname(here) or ".") + (match[2] or "")

    text = re.sub(r"\[([^\]]*)\]\(([^)\s]+/)\)", _plain_folder, markdown)
    return LINK.sub(turned, text).replace(OPTIONS_MARK, options())


def on_page_content(content: str, page: Any, config: Any, files: Files) -> str:
    """Mend what has not come through Markdown: links in notebooks, Sphinx's roles in docstrings."""
    if page.file.src_uri.endswith(".ipynb"):
        content = re.sub(r'href="([^":]+)\.md(?=["#])', r'href="\1.html', content)
    return ROLE.sub(r"\1", content)


def _plain_folder(match: re.Match[str]) -> str:
    """Return a link to a folder as text: on the site there is none to be shown."""
    return match[0] if re.match(r"[a-z]+:", match[2]) else match[1]


def _targets(page: Path) -> Iterator[Path]:
    for match in LINK.finditer(page.read_text(encoding="utf-8")):
        yield (page.parent / match[1]).resolve()


def _site_uri(path: Path) -> str:
    """Return where the site has a file of the repository: docs/ is its root."""
    inside = os.path.relpath(path, ROOT)
    return "index.md" if inside == INDEX else inside.removeprefix(DOCS)


def _repository_path(uri: str) -> Path:
    """Return the file of the repository that stands at a place of the site."""
    if uri == "index.md":
        return ROOT / INDEX
    return ROOT / DOCS / uri if (ROOT / DOCS / uri).exists() else ROOT / uri


def _file(uri: str, path: Path, config: Any) -> File:
    in_nav = InclusionLevel.INCLUDED if path.suffix == ".md" else InclusionLevel.NOT_IN_NAV
    return File.generated(config, uri, abs_src_path=str(path), inclusion=in_nav)


# -- every option ------------------------------------------------------------------------------


def options() -> str:
    """Return every command with its options, as Markdown."""
    return "\n\n".join(_section(command, names) for names, command in _commands(app, ()))


def _commands(
    command: click.Command, names: tuple[str, ...]
) -> Iterator[tuple[tuple[str, ...], click.Command]]:
    """Yield every command with the names that lead to it, the program itself first."""
    yield names, command
    if isinstance(command, click.Group):
        for name in command.list_commands(click.Context(command)):
            _, sub, _ = command.resolve_command(click.Context(command), [name])
            assert sub is not None
            yield from _commands(sub, (*names, name))


def _section(command: click.Command, names: tuple[str, ...]) -> str:
    """Return a heading, what the command does, and a table of its options."""
    title = " ".join(("deltaserver", *names))
    context = click.Context(command, info_name=title, terminal_width=WIDTH)
    usage = " ".join(command.collect_usage_pieces(context))
    about = click.formatting.HelpFormatter(width=WIDTH)
    command.format_help_text(context, about)
    hidden = (param for param in command.params if not getattr(param, "hidden", False))
    records = [record for param in hidden if (record := param.get_help_record(context))]
    rows = [f"| {_code(name)} | {_cell(text)} |" for name, text in records if text]
    table = ["| option | |", "|---|---|", *rows] if rows else []
    lines = [f"## `{title}`", "", "```text", f"{title} {usage}", "", about.getvalue().strip("\n"),
             "```", "", *table]  # fmt: skip
    return "\n".join(lines)


def _code(text: str) -> str:
    return f"<code>{html.escape(text).replace('|', '&#124;')}</code>"


def _cell(text: str) -> str:
    return re.sub(r"([|*_\[\]])", r"\\\1", html.escape(" ".join(text.split()), quote=False))
