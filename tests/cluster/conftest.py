"""Real containers and a real Slurm: `make test-cluster`, as root on Debian 12.

`make test` leaves them out. Set DELTASERVER_TEST_STORE to a directory to keep the images for the
next run.
"""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from .containers import Engine
from .slurm import SlurmCluster

if not os.environ.get("DELTASERVER_TEST_CLUSTER"):
    collect_ignore_glob = ["test_*.py"]


@pytest.fixture(scope="session")
def engine(tmp_path_factory):
    """A container store of its own, with the images `cpu` and `ipi` built in it."""
    kept = os.environ.get("DELTASERVER_TEST_STORE")
    directory = Path(kept) if kept else tmp_path_factory.mktemp("containers")
    with Engine.open(directory, keep=bool(kept)) as engine:
        engine.import_base()
        for target in ("cpu", "ipi"):
            engine.build(target)
        yield engine


@pytest.fixture(scope="session")
def cluster(tmp_path_factory):
    """Two Slurm nodes in two network namespaces."""
    with SlurmCluster.temporary(tmp_path_factory.mktemp("slurm")) as cluster:
        yield cluster
