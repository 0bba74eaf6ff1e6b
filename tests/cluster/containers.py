"""podman and buildah with a store of their own, on machines that have no container service."""

from __future__ import annotations

import contextlib
import json
import os
import re
import shutil
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).parents[2]
BASE = "docker.io/library/debian:12-slim"
BUILD_S, RUN_S = 1800, 600

CONTAINERS_CONF = """\
[containers]
default_ulimits = ["nofile=1024:20000", "nproc=1000:1000"]
[engine]
cgroup_manager = "cgroupfs"
runtime = "runc"
events_logger = "file"
"""
STORAGE_CONF = """\
[storage]
driver = "{driver}"
graphroot = "{store}/root"
runroot = "{store}/run"
"""


@dataclass(frozen=True)
class Engine:
    """Runs podman and buildah on the store in ``directory``."""

    directory: Path
    environment: dict[str, str]

    @staticmethod
    @contextlib.contextmanager
    def open(directory: Path, keep: bool = False) -> Iterator[Engine]:
        """Make or reopen a store; in the end remove it, or keep its images."""
        directory.mkdir(parents=True, exist_ok=True)
        driver = "overlay" if _overlay_works(directory) else "vfs"
        files = {
            "CONTAINERS_CONF": (directory / "containers.conf", CONTAINERS_CONF),
            "CONTAINERS_STORAGE_CONF": (
                directory / "storage.conf",
                STORAGE_CONF.format(driver=driver, store=directory),
            ),
        }
        for path, text in files.values():
            path.write_text(text)
        paths = {name: str(path) for name, (path, _) in files.items()}
        engine = Engine(directory, os.environ | paths)
        try:
            yield engine
        finally:
            engine.podman("rm", "--all", "--force", check=False)
            engine.podman("network", "prune", "--force", check=False)
            for mount in sorted(_mounts_below(directory), reverse=True):
                subprocess.run(["umount", mount], check=False)
            if not keep:
                shutil.rmtree(directory, ignore_errors=True)

    def run(
        self, *command: str | Path, check: bool = True, timeout_s: float = RUN_S, **options: str
    ) -> subprocess.CompletedProcess[str]:
        """Run a command on this store; show what it said if it fails."""
        result = subprocess.run(
            command,
            cwd=ROOT,
            env=self.environment | options,
            capture_output=True,
            text=True,
            timeout=timeout_s,
            check=False,
        )
        if check and result.returncode:
            raise AssertionError(f"{command}:\n{result.stdout[-2000:]}\n{result.stderr[-4000:]}")
        return result

    def podman(self, *arguments: str | Path, check: bool = True) -> str:
        """Run podman; return what it printed on stdout."""
        return self.run("podman", *arguments, check=check).stdout

    def inspect(self, image: str) -> dict:
        """Return what podman knows of an image."""
        return json.loads(self.podman("image", "inspect", image))[0]

    def import_base(self) -> None:
        """Make the base image from Debian's packages: a registry of images is not needed."""
        if self.run("podman", "image", "exists", BASE, check=False).returncode == 0:
            return
        archive = self.directory / "base.tar"
        sources = list(Path("/etc/apt/sources.list.d").glob("*.sources"))
        sources = sources or [Path("/etc/apt/sources.list")]
        excluded = [
            f"--dpkgopt=path-exclude=/usr/share/{folder}/*" for folder in ("doc", "locale", "man")
        ]
        self.run(
            "mmdebstrap", "--variant=minbase", *excluded, "bookworm", archive, *sources,
            timeout_s=BUILD_S,
        )  # fmt: skip
        self.podman("import", archive, BASE)
        archive.unlink()

    def build(self, target: str) -> None:
        """Build one target of the Dockerfile, with this machine's package index, if it has one."""
        mounts = []
        pip, certificates = Path("/etc/pip.conf"), Path("/etc/ssl/certs/ca-certificates.crt")
        if pip.exists():
            ours = self.directory / "pip.conf"
            ours.write_text(re.sub(r"(?m)^cert *=.*", "cert = /run/certs.pem", pip.read_text()))
            mounts += ["--volume", f"{ours}:/etc/pip.conf:ro"]
            mounts += ["--volume", f"{certificates}:/run/certs.pem:ro"]
        self.run(
            "buildah", "bud", "--isolation", "chroot", "--format", "docker", *mounts,
            "--file", "docker/Dockerfile", "--target", target, "--tag", f"deltaserver:{target}",
            ".",
            timeout_s=BUILD_S,
        )  # fmt: skip


def _overlay_works(directory: Path) -> bool:
    """Whether this file system can be stacked; vfs copies every layer instead."""
    names = ("lower", "upper", "work", "merged")
    lower, upper, work, merged = paths = [directory / name for name in names]
    for path in paths:
        path.mkdir()
    options = f"lowerdir={lower},upperdir={upper},workdir={work}"
    code = subprocess.run(
        ["mount", "-t", "overlay", "overlay", "-o", options, merged],
        capture_output=True,
        check=False,
    ).returncode
    if code == 0:
        subprocess.run(["umount", merged], check=True)
    for path in paths:
        shutil.rmtree(path)
    return code == 0


def _mounts_below(directory: Path) -> list[str]:
    lines = Path("/proc/self/mounts").read_text().splitlines()
    return [line.split()[1] for line in lines if line.split()[1].startswith(f"{directory}/")]
