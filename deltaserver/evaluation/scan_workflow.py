"""From a scan's directory and models to numbers, a table and a figure."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from deltaserver.datasets.frames import FragmentSpec
from deltaserver.datasets.labelling import LabelProgress, default_workers
from deltaserver.datasets.workspace import parse_fragment, read_start
from deltaserver.errors import DataError, InputError
from deltaserver.evaluation.figures.held_out import SCAN_FIGURE, save
from deltaserver.evaluation.figures.scan import draw_scan
from deltaserver.evaluation.held_out_errors import load_models
from deltaserver.evaluation.report import FORMAT
from deltaserver.evaluation.scans.curves import ScanPlan
from deltaserver.evaluation.scans.errors import ScanErrors, scan_errors
from deltaserver.evaluation.scans.labels import LabelledScan, label_scan, read_scan
from deltaserver.evaluation.scans.report import scan_json, scan_markdown
from deltaserver.model.directories import STRUCTURE_NAME
from deltaserver.model.manifest import manifest_path
from deltaserver.model.many.manifest import is_of_many
from deltaserver.textio.journal import write_atomically


@dataclass(frozen=True)
class ScanRequest:
    """What was asked of ``evaluate --scan``.

    Attributes:
        directory: where the labelled scan is, or will be.
        plan: which curves.
        calculator: what labels them; None reads what is labelled.
        structure: where they start; None takes the first model's ``structure.xyz``.
        fragments: as ``--fragment`` has them; empty takes the dataset's.
        workers: local processes that label; None takes one per core.
    """

    directory: Path
    plan: ScanPlan = field(default_factory=ScanPlan)
    calculator: str | None = None
    structure: Path | None = None
    fragments: tuple[str, ...] = ()
    workers: int | None = None


def run_scan(
    request: ScanRequest,
    directories: Sequence[Path],
    known: tuple[FragmentSpec, ...] = (),
    on_progress: Callable[[LabelProgress], None] = lambda progress: None,
) -> ScanErrors:
    """Label the scan, or read it, and evaluate the models on it.

    Args:
        request: what was asked.
        directories: of the models.
        known: the dataset's fragments, with their charges, which models do not have.
        on_progress: called while labels are made.

    Raises:
        InputError: anything that is missing or does not fit.
    """
    scan = _labelled(request, directories, known, on_progress)
    return scan_errors(load_models(directories, scan.frames), scan)


def _labelled(
    request: ScanRequest,
    directories: Sequence[Path],
    known: tuple[FragmentSpec, ...],
    on_progress: Callable[[LabelProgress], None],
) -> LabelledScan:
    if request.calculator is None:
        return read_scan(request.directory)
    fragments = tuple(map(parse_fragment, request.fragments)) or known
    if not fragments:
        raise InputError(
            "a scan is labelled with the fragments' charges, which models do not have; give "
            "DATASET, or --fragment NAME:ATOMS:CHARGE for each"
        )
    path = request.structure
    if path is None:
        path = manifest_path(directories[0]).parent / STRUCTURE_NAME
        if is_of_many(directories[0]):
            raise InputError(
                f"{directories[0]}: of many molecules; give the two to be scanned with --structure"
            )
        if not path.is_file():
            raise InputError(f"{path}: no such structure to scan from; give one with --structure")
    return label_scan(
        request.directory,
        read_start(path, fragments),
        fragments,
        request.plan,
        request.calculator,
        request.workers or default_workers(),
        on_progress,
    )


def write_scan(
    found: ScanErrors, output: Path, *, draw: bool = True, command: str = ""
) -> list[Path]:
    """Write ``evaluation.json``, ``evaluation.md`` and the figure of a scan alone into ``output``.

    Raises:
        DataError: something cannot be written there.
        MissingExtraError: matplotlib is not installed.
    """
    try:
        output.mkdir(parents=True, exist_ok=True)
        figures = [save(lambda f: draw_scan(f, found), output / SCAN_FIGURE)] if draw else []
        content = {"format": FORMAT, "scan": scan_json(found)}
        blocks = [f"# {found.scan.frames.name}", scan_markdown(found)]
        blocks += [f"![{path.stem}]({path.name})" for path in figures]
        blocks += [f"Made again by:\n\n    {command}"] if command else []
        texts = {
            output / "evaluation.json": json.dumps(content, indent=2, ensure_ascii=False) + "\n",
            output / "evaluation.md": "\n\n".join(blocks) + "\n",
        }
        for path, text in texts.items():
            write_atomically(path, text.encode())
    except OSError as error:
        raise DataError(f"{output}: cannot be written to ({error})") from error
    return [*texts, *figures]
