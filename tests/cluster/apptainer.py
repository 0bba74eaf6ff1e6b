"""Apptainer, which Debian 12 does not have: from Debian's unstable, in a root of its own."""

from __future__ import annotations

import re
import subprocess
from dataclasses import dataclass
from pathlib import Path

RUN_S = 600
# A root that is no mount, as chroot leaves it, Apptainer refuses.
ENTER = """\
set -e
root=$1 shared=$2; shift 2
mount --bind "$root" "$root"
cd "$root"
mkdir -p mnt old
mount -t proc proc proc; mount --rbind /dev dev; mount -t sysfs sysfs sys
mount --bind "$shared" mnt
pivot_root . old
umount -l /old
cd /mnt
exec "$@"
"""


def mirror() -> str:
    """Return where this machine has Debian's packages from."""
    apt = Path("/etc/apt")
    files = [apt / "sources.list", *sorted((apt / "sources.list.d").glob("*.sources"))]
    text = "\n".join(path.read_text() for path in files if path.exists())
    found = re.search(r"^(?:URIs:|deb)\s+(?:\[.*\]\s+)?(\S+)", text, re.MULTILINE)
    assert found, "no source of Debian's packages in /etc/apt"
    return found.group(1)


@dataclass(frozen=True)
class Apptainer:
    """Runs commands in a root that has Apptainer, with a folder of ours at ``/mnt``."""

    root: Path

    @classmethod
    def install(cls, root: Path) -> Apptainer:
        """Make the root; a mirror may lag behind, so that how old its list is does not matter."""
        subprocess.run(
            [
                "mmdebstrap", "--variant=minbase", "--include=apptainer,squashfuse",
                '--aptopt=Acquire::Check-Valid-Until "false"', "sid", root, mirror(),
            ],
            check=True,
            capture_output=True,
            timeout=RUN_S,
        )  # fmt: skip
        (root / "etc" / "hosts").write_text("127.0.0.1 localhost\n")
        return cls(root)

    def __call__(self, shared: Path, *arguments: str | Path) -> str:
        """Run ``apptainer`` with arguments in a mount namespace; return what it printed."""
        command = ["unshare", "--mount", "--propagation", "private", "sh", "-c", ENTER, "enter"]
        done = subprocess.run(
            [*command, self.root, shared, "apptainer", *arguments],
            capture_output=True,
            text=True,
            timeout=RUN_S,
            check=False,
        )
        assert done.returncode == 0, f"{arguments}:\n{done.stdout[-2000:]}\n{done.stderr[-3000:]}"
        return done.stdout
