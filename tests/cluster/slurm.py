"""A Slurm of two nodes on one machine, each in a network namespace of its own.

Nothing of it is outside its directory and its namespaces: munge, controller and nodes run on
configurations and addresses of their own, and all ends with the ``with`` block.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import socket
import stat
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

ROOT = Path(__file__).parents[2]
NODES = ("n1", "n2")
NETWORK = "10.83.0"  # seen in these namespaces only
CONTROLLER = f"{NETWORK}.1"
ADDRESSES = {node: f"{NETWORK}.{k}" for k, node in enumerate(NODES, start=2)}
N_GPUS = 2
COMMAND_S = 180

SLURM_CONF = """\
ClusterName=delta
SlurmctldHost={host}({controller})
SlurmUser=root
AuthType=auth/munge
AuthInfo=socket={directory}/munge/socket,cred_expire=5
StateSaveLocation={directory}/state
SlurmdSpoolDir={directory}/spool-%n
SlurmctldPidFile={directory}/slurmctld.pid
SlurmdPidFile={directory}/slurmd-%n.pid
SlurmctldLogFile={directory}/slurmctld.log
SlurmdLogFile={directory}/slurmd-%n.log
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
MpiDefault=none
SelectType=select/cons_tres
SelectTypeParameters=CR_Core
SlurmdParameters=config_overrides
GresTypes=gpu
ReturnToService=2
SlurmdTimeout=10
SlurmctldTimeout=10
KillWait=5
OverTimeLimit=0
{nodes}
PartitionName=all Nodes=ALL Default=YES MaxTime=INFINITE State=UP
"""


@dataclass
class SlurmCluster:
    """Submits jobs to a Slurm that runs in ``directory``."""

    directory: Path
    prefix: str
    environment: dict[str, str]
    processes: list[subprocess.Popen[bytes]] = field(default_factory=list)

    @staticmethod
    @contextlib.contextmanager
    def temporary(directory: Path) -> Iterator[SlurmCluster]:
        """Start munge, the controller and two nodes; end them, whatever happens."""
        cluster = SlurmCluster(
            directory,
            f"ds{os.getpid()}",
            os.environ
            | {
                "SLURM_CONF": str(directory / "slurm.conf"),
                "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}",
            },
        )
        try:
            cluster._make_network()
            cluster._write_configuration()
            cluster._start_munge()
            cluster._start(cluster.prefix, "slurmctld", "-D", "-f", directory / "slurm.conf")
            for node in NODES:
                cluster.start_node(node)
            cluster.wait_until(lambda: cluster.states() == ["idle", "idle"], 120, "idle nodes")
            yield cluster
        finally:
            cluster._end()

    # -- jobs ----------------------------------------------------------------------------------

    def command(self, *arguments: str | Path, check: bool = True) -> str:
        """Run one of Slurm's commands beside the controller; return what it printed."""
        result = subprocess.run(
            [*_in(self.prefix), *arguments],
            cwd=ROOT,
            env=self.environment,
            capture_output=True,
            text=True,
            timeout=COMMAND_S,
            check=False,
        )
        if check and result.returncode:
            raise AssertionError(f"{arguments}: {result.stdout}{result.stderr}")
        return result.stdout

    def submit(self, script: str, *options: str, **variables: str | Path) -> str:
        """Submit one of docker/slurm's scripts; return the job's number."""
        exported = ",".join(["ALL", *(f"{name}={value}" for name, value in variables.items())])
        return self.command(
            "sbatch", "--parsable", f"--export={exported}", *options,
            f"docker/slurm/{script}.sbatch",
        ).strip()  # fmt: skip

    def job(self, number: str) -> dict[str, str]:
        """Return what Slurm knows of a job."""
        text = self.command("scontrol", "--oneliner", "show", "job", number)
        return dict(word.split("=", 1) for word in text.split() if "=" in word)

    def wait_for(self, number: str, timeout_s: float = 600) -> list[str]:
        """Wait until a job, or each task of an array, has ended; return the states."""

        def states() -> list[str]:
            lines = self.command("scontrol", "--oneliner", "show", "job", number).splitlines()
            return [line.split("JobState=")[1].split()[0] for line in lines if "JobState=" in line]

        going_on = {"PENDING", "RUNNING", "COMPLETING", "REQUEUED", "CONFIGURING", "SUSPENDED"}
        self.wait_until(
            lambda: not going_on.intersection(states()), timeout_s, f"the end of job {number}"
        )
        return states()

    def wait_until(self, condition: Callable[[], bool], timeout_s: float, what: str) -> None:
        """Wait for a condition; tell what Slurm says if it does not come."""
        deadline = time.monotonic() + timeout_s
        while not condition():
            if time.monotonic() > deadline:
                queue = self.command("squeue", check=False) + self.command("sinfo", check=False)
                raise AssertionError(f"no {what} after {timeout_s:g} s\n{queue}{self._logs()}")
            time.sleep(0.3)

    # -- nodes ---------------------------------------------------------------------------------

    def states(self) -> list[str]:
        """Return the state of every node."""
        return self.command("sinfo", "-N", "-h", "-o", "%t", check=False).split()

    def start_node(self, node: str) -> None:
        """Start the node's slurmd in its namespace."""
        self._start(
            self._namespace(node), "slurmd", "-D", "-N", node, "-f", self.directory / "slurm.conf"
        )

    def kill_node(self, node: str) -> None:
        """Kill everything that runs on a node at once, as a power failure does."""
        for pid in self._processes_in(self._namespace(node)):
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)

    # -- making and ending ---------------------------------------------------------------------

    def _namespace(self, node: str) -> str:
        return f"{self.prefix}{node}"

    def _make_network(self) -> None:
        """Join three namespaces by a bridge in the controller's; the machine's own stays."""
        _ip("netns", "add", self.prefix)
        inside = ("-n", self.prefix)
        _ip(*inside, "link", "set", "lo", "up")
        _ip(*inside, "link", "add", "bridge", "type", "bridge")
        _ip(*inside, "address", "add", f"{CONTROLLER}/24", "dev", "bridge")
        _ip(*inside, "link", "set", "bridge", "up")
        for node, address in ADDRESSES.items():
            namespace = self._namespace(node)
            _ip("netns", "add", namespace)
            _ip(*inside, "link", "add", node, "type", "veth", "peer", "eth0", "netns", namespace)
            _ip(*inside, "link", "set", node, "master", "bridge", "up")
            _ip("-n", namespace, "link", "set", "lo", "up")
            _ip("-n", namespace, "address", "add", f"{address}/24", "dev", "eth0")
            _ip("-n", namespace, "link", "set", "eth0", "up")

    def _write_configuration(self) -> None:
        host = socket.gethostname().split(".")[0]
        nodes = "\n".join(
            f"NodeName={node} NodeHostname={host} NodeAddr={address} CPUs=4 RealMemory=2000 "
            f"Gres=gpu:{N_GPUS} State=UNKNOWN"
            for node, address in ADDRESSES.items()
        )
        (self.directory / "slurm.conf").write_text(
            SLURM_CONF.format(
                host=host, controller=CONTROLLER, directory=self.directory, nodes=nodes
            )
        )
        # Slurm asks whether a GPU's device file is there, and gives jobs its number: these are
        # copies of /dev/null.
        for k in range(N_GPUS):
            os.mknod(self.directory / f"gpu{k}", stat.S_IFCHR | 0o666, os.makedev(1, 3))
        (self.directory / "gres.conf").write_text(
            f"Name=gpu Flags=nvidia_gpu_env File={self.directory}/gpu[0-{N_GPUS - 1}]\n"
        )
        (self.directory / "state").mkdir()

    def _start_munge(self) -> None:
        folder = self.directory / "munge"
        folder.mkdir(mode=0o755)
        key = folder / "key"
        key.write_bytes(os.urandom(128))
        key.chmod(0o600)
        self._start(
            None, "munged", "--foreground", "--force", f"--key-file={key}",
            f"--socket={folder}/socket", f"--pid-file={folder}/pid",
            f"--log-file={folder}/log", f"--seed-file={folder}/seed",
        )  # fmt: skip
        deadline = time.monotonic() + 20
        while not (folder / "socket").exists():
            assert time.monotonic() < deadline, (self.directory / "munged.log").read_text()
            time.sleep(0.1)

    def _start(self, namespace: str | None, *command: str | Path) -> None:
        inside = _in(namespace) if namespace else []
        with (self.directory / f"{command[0]}.log").open("ab") as log:
            self.processes.append(
                subprocess.Popen(
                    [*inside, *command],
                    env=self.environment,
                    stdin=subprocess.DEVNULL,
                    stdout=log,
                    stderr=subprocess.STDOUT,
                )
            )

    def _processes_in(self, namespace: str) -> list[int]:
        said = subprocess.run(
            ["ip", "netns", "pids", namespace], capture_output=True, text=True, check=False
        )
        return [int(pid) for pid in said.stdout.split()]

    def _end(self) -> None:
        namespaces = [*map(self._namespace, NODES), self.prefix]
        for namespace in namespaces:
            for pid in self._processes_in(namespace):
                with contextlib.suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)
        for process in self.processes:
            process.kill()
            process.wait()
        for namespace in namespaces:
            subprocess.run(["ip", "netns", "delete", namespace], check=False, capture_output=True)
        shutil.rmtree(self.directory, ignore_errors=True)

    def _logs(self) -> str:
        logs = sorted(self.directory.glob("*.log"))
        return "\n".join(f"{log.name}: {log.read_text()[-1500:]}" for log in logs)


def _in(namespace: str) -> list[str]:
    """Enter a network namespace and nothing else: `ip netns exec` would hide /sys/fs/cgroup."""
    return ["nsenter", f"--net=/run/netns/{namespace}"]


def _ip(*arguments: str) -> None:
    subprocess.run(["ip", *arguments], check=True, timeout=20)
