import os
from pathlib import Path

import numpy as np
import pytest

os.environ.setdefault("OMP_NUM_THREADS", "1")


@pytest.fixture(scope="module")
def cheap():
    """Make ``cheap_calculators`` importable, here and in the processes that a test starts."""
    here = str(Path(__file__).parent)
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(here)
        patch.setenv("PYTHONPATH", os.pathsep.join([here, os.environ.get("PYTHONPATH", "")]))
        yield "cheap_calculators:SlowEMT"


@pytest.fixture(scope="module")
def cluster(tmp_path_factory):
    """An XYZ file of a Cu3 triangle over an Au2 pair, which EMT describes; read only."""
    path = tmp_path_factory.mktemp("cluster") / "cluster.xyz"
    path.write_text(
        '5\nsource="made for this test"\n'
        "Cu 0.0 0.0 0.0\nCu 2.4 0.0 0.0\nCu 1.2 2.1 0.0\nAu 0.0 0.5 3.2\nAu 2.5 0.5 3.2\n"
    )
    return path


@pytest.fixture
def frames():
    """Twelve made-up frames of a water-like fragment and a lone ion, two trajectories."""
    from deltaserver.datasets.frames import FragmentSpec, LabelledFrames

    rng = np.random.default_rng(1)
    start = np.array([[0.0, 0, 0], [0.96, 0, 0], [-0.24, 0.93, 0], [0, 0, 2.5]])
    shape = (12, 4, 3)
    fragment_forces = rng.normal(size=shape)
    fragment_forces[:, 3] = 0.0
    return LabelledFrames(
        name="ion",
        reference="made up",
        numbers=np.array([8, 1, 1, 11]),
        fragments=(FragmentSpec("water", (0, 1, 2)), FragmentSpec("sodium", (3,), 1)),
        positions=start + 0.05 * rng.normal(size=shape),
        energy=-500.0 + rng.normal(size=12),
        forces=rng.normal(size=shape),
        fragment_energies=np.column_stack([rng.normal(size=12) - 490.0, np.full(12, 3.3)]),
        fragment_forces=fragment_forces,
        trajectory=np.repeat([0, 1], 6),
        step=np.tile(np.arange(0, 60, 10), 2),
    )
