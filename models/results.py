"""Print the table of docs/results.md from what models/evaluate.sh has measured."""

from __future__ import annotations

import json
from pathlib import Path

ROOT = Path(__file__).parents[1]
# The paper's improvements in force MAE, Δ against full (Figs. 6 and 7).
PAPER = {
    "methane_dimer": 51,
    "benzene_dimer": 71,
    "benzene_water": 56,
    "na_benzene": 26,
    "no3_corona_surrogate": 13,
    "c60": 24,
}


def force_mae(report: dict, model: str, component: str) -> float:
    for entry in report["errors"]:
        if entry["model"].endswith(model) and entry["component"] == component:
            return entry["forces"]["overall"]["mae_kcal_mol_ang"]
    return float("nan")


def main() -> None:
    print(
        "| system | M | test frames | full | Δ | full, symmetry | Δ, symmetry "
        "| Δ against full | with symmetry, against full | paper |"
    )
    print("|---|---|---|---|---|---|---|---|---|---|")
    for name, paper in PAPER.items():
        path = ROOT / "run" / "evaluate" / f"{name}-table" / "evaluation.json"
        if not path.is_file():
            continue
        report = json.loads(path.read_text())
        full, delta = (force_mae(report, "none", c) for c in ("full", "total"))
        full_s, delta_s = (force_mae(report, "product", c) for c in ("full", "total"))
        m = {part["n_train"] for model in report["models"] for part in model["parts"].values()}
        print(
            f"| {name} | {', '.join(map(str, sorted(m)))} | {report['split']['n_test']} "
            f"| {full:.3f} | {delta:.3f} | {full_s:.3f} | {delta_s:.3f} "
            f"| {100 * (1 - delta / full):.0f} % | {100 * (1 - delta_s / full):.0f} % | {paper} % |"
        )


if __name__ == "__main__":
    main()
