"""The images' lock files hold what docker/lock.sh asks for, and what the extras of today need."""

from __future__ import annotations

import re

import pytest
from packaging.markers import default_environment
from packaging.utils import canonicalize_name

from tests.docs.test_conda_environment import ROOT, requirements
from tests.docs.test_names import SETUP

LOCKS = re.findall(
    r"^lock (\w+) setup\.cfg (.*)$",
    re.sub(r"\\\n\s*", " ", (ROOT / "docker" / "lock.sh").read_text(encoding="utf-8")),
    re.MULTILINE,
)
DEBIAN = default_environment() | {"python_version": "3.11", "sys_platform": "linux"}
NOT_IN_FULL = {"dask", "fast", "dev", "docs", "lammps", "openmm", "torch-sim"}  # or by another


@pytest.mark.parametrize(("image", "options"), LOCKS, ids=[image for image, _ in LOCKS])
def test_an_image_has_what_its_extras_ask_for(image, options):
    text = (ROOT / "docker" / "requirements" / f"{image}.txt").read_text(encoding="utf-8")
    pinned = {
        canonicalize_name(name): version
        for name, version in re.findall(r"^([\w.-]+)==([^ \\]+)", text, re.MULTILINE)
    }
    texts = [SETUP["options"]["install_requires"]]
    texts += [
        SETUP["options.extras_require"][extra] for extra in re.findall(r"--extra (\S+)", options)
    ]
    for wanted in (one for text in texts for one in requirements(text)):
        if wanted.marker is None or wanted.marker.evaluate(DEBIAN):
            version = pinned.get(canonicalize_name(wanted.name))
            assert version is not None, wanted
            assert wanted.specifier.contains(version), (wanted, version)


def test_the_full_image_can_do_everything_but_other_engines():
    options = dict(LOCKS)["full"]
    assert set(SETUP["options.extras_require"]) - NOT_IN_FULL == set(
        re.findall(r"--extra (\S+)", options)
    )
