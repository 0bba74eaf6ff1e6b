"""Write what was imported: a dataset, or one under construction whose fragments need labels."""

from __future__ import annotations

import json
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from deltaserver.datasets.files import MANIFEST_NAME, write_dataset
from deltaserver.datasets.frames import FragmentSpec, LabelledFrames, check_partition
from deltaserver.datasets.geometries import check_lengths
from deltaserver.datasets.importing.read import Imported, Keys, elements_known, read_labelled
from deltaserver.datasets.labelling import COMPLEX
from deltaserver.datasets.plausibility import (
    binding_notes,
    check_binding,
    check_complex_plausible,
    check_plausible,
)
from deltaserver.datasets.sampling.dynamics import POSITION_DECIMALS, Start
from deltaserver.datasets.workspace import Workspace, command_line, open_frames, unique_steps
from deltaserver.errors import DataError
from deltaserver.textio.journal import write_atomically
from deltaserver.textio.xyz_frames import Note


@dataclass(frozen=True)
class Request:
    """What to import, and where to."""

    source: Path
    fragments: tuple[FragmentSpec, ...]
    output: Path
    keys: Keys
    units: str | None
    n_frames: int | None
    calculator: str | None
    name: str
    reference: str | None


def import_dataset(request: Request, note: Note) -> tuple[LabelledFrames | None, Workspace | None]:
    """Write the dataset, or set up the labelling of its fragments.

    Returns:
        The frames written and None, or None and what is to be labelled.

    Raises:
        DataError: a file that cannot be read, labels that are missing or cannot be right, or a
            dataset that is there already.
    """
    where = str(request.source)
    found = read_labelled(request.source, request.fragments, request.keys, request.units, note)
    elements_known(found.numbers, where)
    check_partition(request.fragments, len(found.numbers), where)
    found = _thinned(found, request.n_frames)
    check_lengths(found.numbers, found.positions, request.fragments, where)
    frames = found.labelled(
        request.fragments, request.name, request.reference or f"of {request.source.name}"
    )
    if frames is not None:
        return _write(request, frames, note), None
    if request.calculator is None:
        raise DataError(
            f"{where}: has labels of the complex only; --calculator labels the fragments, by the "
            "method that the file's labels are of"
        )
    check_complex_plausible(_as_if_labelled(request, found), where)
    note(
        f"the complex keeps its labels of {where}; {request.calculator} labels the fragments: "
        "both must be one method"
    )
    return None, _begin(request, found)


def _as_if_labelled(request: Request, found: Imported) -> LabelledFrames:
    """Return the frames with the complex' forces for those of the fragments, to be checked."""
    energies = np.zeros((len(found.energy), len(request.fragments)))
    alone = replace(found, fragment_energies=energies, fragment_forces=found.forces)
    frames = alone.labelled(request.fragments, request.name, "imported")
    assert frames is not None
    return frames


def _thinned(found: Imported, n_frames: int | None) -> Imported:
    total = len(found.energy)
    if n_frames is None or n_frames >= total:
        return found
    return found.select(np.linspace(0, total - 1, n_frames).round().astype(np.int64))


def check_imported(frames: LabelledFrames, where: str, note: Note) -> None:
    """Refuse labels that do not go together (DataError), and note what may be wrong with them."""
    check_binding(frames, where)
    for line in binding_notes(frames, where):
        note(line)


def _write(request: Request, frames: LabelledFrames, note: Note) -> LabelledFrames:
    if (request.output / MANIFEST_NAME).exists():
        raise DataError(f"{request.output}: has a dataset already; choose another --output")
    check_plausible(frames, str(request.source))
    check_imported(frames, str(request.source), note)
    provenance = {"command": command_line(), "imported": request.source.name}
    write_dataset(frames, request.output, provenance)
    return frames


def _begin(request: Request, found: Imported) -> Workspace:
    positions = found.positions.round(POSITION_DECIMALS)
    steps = unique_steps(found.steps.tolist())
    starts = tuple(Start(found.numbers, frame, request.source.name) for frame in positions)
    workspace = open_frames(
        request.output, starts, request.fragments, steps, label_calculator=request.calculator
    )
    if not workspace.labels.exists():
        records = [
            {"trajectory": t, "step": s, "system": COMPLEX, "energy": e, "forces": f}
            for (t, s), e, f in zip(
                steps, found.energy.tolist(), found.forces.tolist(), strict=True
            )
        ]
        text = "".join(json.dumps(record, separators=(",", ":")) + "\n" for record in records)
        write_atomically(workspace.labels, text.encode())
    return workspace
