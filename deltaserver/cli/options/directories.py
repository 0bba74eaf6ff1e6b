"""Model directories as options take them: by path, or by an installed model's name."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click
from click.shell_completion import CompletionItem

from deltaserver.model.directories import model_directory, shipped_models


def offer_names(incomplete: str) -> list[CompletionItem]:
    """Return the names of installed models that begin so, for the Tab key."""
    return [CompletionItem(name) for name in shipped_models() if name.startswith(incomplete)]


class ModelDirectory(click.ParamType[Path]):
    """The path of a model directory, or the name of one that ``deltaserver models list`` tells."""

    name = "directory"

    def convert(self, value: Any, param: Any, ctx: Any) -> Path:
        """Return the directory's path; whether there is a model, its reader finds out."""
        return model_directory(value)

    def shell_complete(self, ctx: Any, param: Any, incomplete: str) -> list[CompletionItem]:
        """Offer the names of installed models, and directories."""
        return [CompletionItem(incomplete, type="dir"), *offer_names(incomplete)]


MODEL_DIRECTORY = ModelDirectory()
MODELS = click.option(
    "-m",
    "--models",
    type=MODEL_DIRECTORY,
    required=True,
    metavar="DIR",
    help="Model directory, or the name of a shipped model.",
)
