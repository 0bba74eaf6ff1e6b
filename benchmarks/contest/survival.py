"""Does dynamics at 400 K keep the molecules whole? By the criterion of ``deltaserver simulate``.

A run ends where a bond of the start structure is longer than 1.75 (or shorter than 0.5) times the
sum of the covalent radii, or where the guest is 12 Å away from the host: *broken* or *left*.
"""

from __future__ import annotations

import time
from typing import Any

import numpy as np

from benchmarks.contest.cases import FRICTION_PER_FS, TEMPERATURE_K, TIME_STEP_FS
from deltaserver.simulate.blowup import BlowUpError, GeometryWatch, Limits

WHOLE, BROKEN, LEFT, SHORT = "whole", "broken", "left", "out of time"
LOOK_EVERY = 10  # steps
FS_PER_PS = 1000.0


def langevin(atoms: Any, seed: int = 0) -> Any:
    """Return Langevin dynamics at 400 K, 0.5 fs, τ = 100 fs, with velocities of 400 K."""
    from ase import units
    from ase.md.langevin import Langevin

    rng = np.random.default_rng(seed)
    width = np.sqrt(atoms.get_masses() * units.kB * TEMPERATURE_K)
    atoms.set_momenta(width[:, None] * rng.normal(size=(len(atoms), 3)))
    return Langevin(
        atoms,
        TIME_STEP_FS * units.fs,
        temperature_K=TEMPERATURE_K,
        friction=FRICTION_PER_FS / units.fs,
        rng=rng,
        fixcm=False,
    )


def survive(atoms: Any, fragments: list[Any], ps: float, limit_s: float) -> dict[str, Any]:
    """Run for ``ps``, or ``limit_s`` of processor time; say how it ended and after how long."""
    watch = GeometryWatch(atoms.numbers, fragments, Limits())
    dynamics, began, kelvin = langevin(atoms), time.process_time(), []
    end, reason, n_steps = WHOLE, "", round(ps * FS_PER_PS / TIME_STEP_FS)
    try:
        watch.check(atoms.positions[None])
        while dynamics.nsteps < n_steps:
            dynamics.run(min(LOOK_EVERY, n_steps - dynamics.nsteps))
            watch.check(atoms.positions[None])
            kelvin.append(atoms.get_temperature())
            if time.process_time() - began > limit_s:
                end = SHORT if dynamics.nsteps < n_steps else WHOLE
                break
    except BlowUpError as error:
        end, reason = LEFT if "away from the others" in str(error) else BROKEN, str(error)
    except Exception as error:  # an SCF that does not converge in such a structure, say
        end, reason = BROKEN, f"{type(error).__name__}: {' '.join(str(error).split())[:150]}"
    return {
        "end": end,
        "reason": reason,
        "ps": dynamics.nsteps * TIME_STEP_FS / FS_PER_PS,
        "asked_ps": ps,
        "mean_k": float(np.mean(kelvin[len(kelvin) // 2 :])) if kelvin else None,
        "cpu_s": time.process_time() - began,
    }
