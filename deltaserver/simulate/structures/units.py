"""Units of model files that state none, where several directories become one."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

from deltaserver.errors import ManifestError
from deltaserver.model.files.parameters import read_parameters
from deltaserver.model.sgdml import DEFAULT_ENERGY_UNIT, DEFAULT_LENGTH_UNIT

DEFAULTS = {"length": DEFAULT_LENGTH_UNIT, "energy": DEFAULT_ENERGY_UNIT}


def shared_units(
    known: Mapping[str, str], stated: Mapping[str, str | None], files: Sequence[Path], where: Path
) -> dict[str, str]:
    """Return ``units`` of a manifest that takes ``files`` in, beside those that are ``known``.

    Args:
        known: of files without units that were taken before.
        stated: of the directory's own manifest.
        files: of the directory.
        where: that manifest.

    Raises:
        ManifestError: files without units are in others than those before them.
    """
    found = dict(known)
    parameters = [read_parameters(file) for file in files]
    for what, default in DEFAULTS.items():
        if all(getattr(one, f"{what}_unit") for one in parameters):
            continue
        unit = stated.get(what) or default
        if found.setdefault(what, unit) != unit:
            raise ManifestError(
                f"{where}: its files state no unit of {what} and are in {unit}, those of a "
                f"directory before it in {found[what]}: one model.yaml can say but one; train one "
                "of the two anew, which writes units into the files"
            )
    return found
