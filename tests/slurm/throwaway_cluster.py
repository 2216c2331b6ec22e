"""A Slurm cluster that lives as long as a test: its daemons run on loopback of this machine.

No systemd, cgroups or accounting database. A "node" is one slurmd; several run side by
side, as Debian's build allows. Cores and memory of a node are what the configuration
claims (config_overrides), so a cluster larger than the machine can be had.
"""

import contextlib
import ctypes
import fcntl
import os
import random
import shutil
import signal
import socket
import subprocess
import time
from pathlib import Path

PROGRAMS = ("slurmctld", "slurmd", "sbatch", "munged")
LOCK = Path("/run/lock/dpuflow-slurm-test")
"""There is one default configuration and one munge socket: one such cluster at a time."""
DEFAULT_CONFIG = Path("/etc/slurm/slurm.conf")
CONFIG = """\
ClusterName=throwaway
SlurmctldHost={host}(127.0.0.1)
SlurmctldPort={port}
SlurmUser=root
AuthType=auth/munge
CredType=cred/munge
StateSaveLocation={root}/state
SlurmdSpoolDir={root}/spool/%n
SlurmctldPidFile={root}/slurmctld.pid
SlurmdPidFile={root}/%n.pid
SlurmctldLogFile={root}/slurmctld.log
SlurmdLogFile={root}/%n.log
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
JobAcctGatherType=jobacct_gather/none
MpiDefault=none
SelectType=select/cons_tres
SelectTypeParameters=CR_Core_Memory
SlurmdParameters=config_overrides
SchedulerType=sched/builtin
SchedulerParameters=sched_interval=1,batch_sched_delay=0,sched_min_interval=0
# finished jobs stay visible for squeue, which answers the status queries here
MinJobAge=7200
# a lost node is noticed within seconds; the workflow, not Slurm, starts its jobs again
SlurmdTimeout=6
JobRequeue=0
ReturnToService=2
KillWait=2
{nodes}
PartitionName=main Nodes=ALL Default=YES MaxTime=INFINITE State=UP
"""


class UnavailableError(Exception):
    """This machine cannot run a cluster; the message says why."""


class Cluster:
    """`nodes` slurmd with `cpus` cores and `memory` MB each; all state below `root`."""

    def __init__(self, root, nodes=2, cpus=4, memory=64000):
        self.root = Path(root)
        self.names = [f"node{i}" for i in range(1, nodes + 1)]
        self.cpus, self.memory = cpus, memory
        self.config = self.root / "slurm.conf"
        self.environment = {key: value for key, value in os.environ.items() if not key.startswith("SLURM_")}
        self.environment["SLURM_CONF"] = str(self.config)
        self._daemons = {}
        self._lock = None
        self._link_before = None

    def __enter__(self):
        try:
            self.start()
        except BaseException:
            self.stop()
            raise
        return self

    def __exit__(self, *_):
        self.stop()

    def start(self):
        """All daemons; returns when every node is idle."""
        self.root.mkdir(parents=True, exist_ok=True)
        self._take_turn()
        for folder in ("state", "spool"):
            (self.root / folder).mkdir(exist_ok=True)
        self._start_munge()
        self._write_config()
        self.start_controller(clean=True)
        for name in self.names:
            self.start_node(name)
        self.wait_for(lambda: self._states().count("idle") == len(self.names), 200, "idle nodes")

    def stop(self):
        """Stop what `start` started, nothing else."""
        if self.config.exists():
            subprocess.run(["scancel", "--user=root"], env=self.environment, capture_output=True, timeout=30)
        for name in self.names:
            self.lose_node(name)
        self.stop_controller()
        if DEFAULT_CONFIG.is_symlink() and DEFAULT_CONFIG.resolve() == self.config.resolve():
            DEFAULT_CONFIG.unlink()
            if self._link_before and Path(self._link_before).exists():
                DEFAULT_CONFIG.symlink_to(self._link_before)
        self._end("munged", signal.SIGTERM)
        if self._lock:
            self._lock.close()

    def start_controller(self, clean=False):
        self._begin("slurmctld", "slurmctld", "-D", "-f", self.config, *(["-c"] if clean else []))
        self.wait_for(lambda: "UP" in self._run("scontrol", "ping", check=False), 200, "the controller")

    def stop_controller(self, number=signal.SIGTERM):
        """End slurmctld; with SIGKILL it has no chance to save its state."""
        self._end("slurmctld", number)

    def start_node(self, name):
        self._begin(name, "slurmd", "-D", "-f", self.config, "-N", name)

    def lose_node(self, name):
        """Kill slurmd of a node and everything that runs on it, as when the power goes."""
        self._end(name, signal.SIGKILL)
        for _ in range(4):  # again: a job that is just being started shows itself only then
            below, above = _processes_of(name)
            for pid in (*above, *below):  # who is above would tell the controller that a job failed
                _kill(pid)
            time.sleep(0.2)

    def jobs(self, *states):
        """{job id: node} of the jobs in these states (default: not finished)."""
        wanted = ",".join(states or ("PENDING", "RUNNING", "COMPLETING"))
        lines = self._run("squeue", "--noheader", f"--states={wanted}", "--format=%i|%N").splitlines()
        return dict(line.split("|") for line in lines)

    def names_of_jobs(self):
        """{job id: comment}: the comment names the rule or group and its wildcards."""
        lines = self._run("squeue", "--noheader", "--states=all", "--format=%i|%k").splitlines()
        return dict(line.split("|", 1) for line in lines)

    def steps(self):
        """Ids of the running job steps ("12.batch", "12.0")."""
        return self._run("squeue", "--noheader", "--steps", "--format=%i").split()

    def cancel(self, job):
        self._run("scancel", job)

    def wait_for(self, condition, seconds, what):
        """Poll until `condition()` holds, TimeoutError after so many seconds."""
        end = time.monotonic() + seconds
        while not (value := condition()):
            if time.monotonic() > end:
                logs = "\n".join(f"{p.name}: {p.read_text()[-800:]}" for p in self.root.glob("*.log"))
                raise TimeoutError(f"waited {seconds} s for {what}\n{logs}")
            time.sleep(0.2)
        return value

    def _take_turn(self):
        """Wait until no other test session of this machine has a cluster."""
        LOCK.parent.mkdir(exist_ok=True)
        self._lock = open(LOCK, "w")  # noqa: SIM115 - held until stop
        fcntl.flock(self._lock, fcntl.LOCK_EX)

    def _begin(self, name, *command):
        """Start a daemon in the foreground, as a child that dies with this process."""
        self._daemons[name] = subprocess.Popen(
            [str(word) for word in command],
            env=self.environment,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            preexec_fn=_die_with_parent,
        )

    def _end(self, name, number):
        """Signal a daemon and wait until it has gone."""
        daemon = self._daemons.pop(name, None)
        if daemon:
            daemon.send_signal(number)
            try:
                daemon.wait(15)
            except subprocess.TimeoutExpired:
                daemon.kill()
                daemon.wait()

    def _states(self):
        return self._run("sinfo", "--noheader", "-N", "--format=%t", check=False).split()

    def _run(self, *command, check=True):
        done = subprocess.run(
            [str(word) for word in command], env=self.environment, capture_output=True, text=True, timeout=200
        )
        if check and done.returncode:
            raise RuntimeError(f"{command}: {done.stderr or done.stdout}")
        return done.stdout

    def _start_munge(self):
        """Slurm's authentication: one that answers already is used as it is."""
        if subprocess.run(["munge", "-n"], capture_output=True).returncode == 0:
            return
        folder = self.root / "munge"
        folder.mkdir(mode=0o755, exist_ok=True)
        key = folder / "key"
        key.write_bytes(os.urandom(128))
        key.chmod(0o600)
        Path("/run/munge").mkdir(mode=0o755, exist_ok=True)
        for path in (self.root, folder):  # munged refuses folders that others may write
            path.chmod(0o755)
        files = ("key", "pid", "log", "seed")
        options = [f"--{name}-file={folder / name}" for name in files]
        self._begin("munged", "munged", "--foreground", "--force", *options)
        answered = ["munge", "-n"]
        self.wait_for(lambda: subprocess.run(answered, capture_output=True).returncode == 0, 200, "munge")

    def _write_config(self):
        host = socket.gethostname().partition(".")[0]
        ports = _free_ports(len(self.names) + 1)
        nodes = "\n".join(
            f"NodeName={name} NodeHostname={host} NodeAddr=127.0.0.1 Port={port} "
            f"CPUs={self.cpus} RealMemory={self.memory} State=UNKNOWN"
            for name, port in zip(self.names, ports[1:], strict=True)
        )
        self.config.write_text(CONFIG.format(root=self.root, host=host, port=ports[0], nodes=nodes))
        # the job step plugin drops SLURM_CONF: the default path has to work, too
        if DEFAULT_CONFIG.is_symlink():
            self._link_before = os.readlink(DEFAULT_CONFIG)
            DEFAULT_CONFIG.unlink()
        DEFAULT_CONFIG.parent.mkdir(exist_ok=True)
        DEFAULT_CONFIG.symlink_to(self.config)


def require_slurm():
    """UnavailableError where Slurm is not installed or must not be started."""
    if os.geteuid() != 0:
        raise UnavailableError("a throw-away Slurm cluster needs root (several slurmd, munge)")
    if DEFAULT_CONFIG.exists() and not DEFAULT_CONFIG.is_symlink():
        raise UnavailableError(f"{DEFAULT_CONFIG} exists: this machine belongs to a cluster")
    if missing := [name for name in PROGRAMS if not shutil.which(name)]:
        raise UnavailableError(f"needs {', '.join(missing)} (make test-tools)")


def _free_ports(count):
    """So many distinct TCP ports that are free now.

    They lie below those that Linux gives to outgoing connections: the controller, killed and started again,
    must find its port free.
    """
    ports = set()
    while len(ports) < count:
        port = random.SystemRandom().randrange(15_000, 32_000)
        with contextlib.suppress(OSError), socket.create_server(("127.0.0.1", port)):
            ports.add(port)
    return sorted(ports)


def _kill(pid):
    with contextlib.suppress(ProcessLookupError):
        os.kill(pid, signal.SIGKILL)


def _die_with_parent():
    """In the child: have the kernel end it when the test session dies without cleaning up."""
    pr_set_pdeathsig = 1
    ctypes.CDLL(None).prctl(pr_set_pdeathsig, signal.SIGKILL)


def _processes_of(node):
    """(processes of jobs on a node, every slurmstepd above them)."""
    below, above = set(), set()
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            variables = (folder / "environ").read_bytes().split(b"\0")
            if f"SLURMD_NODENAME={node}".encode() not in variables:
                continue
            below.add(int(folder.name))
            parent = int((folder / "stat").read_text().rpartition(")")[2].split()[1])
            if (Path("/proc") / str(parent) / "comm").read_text().strip() == "slurmstepd":
                above.add(parent)
        except (OSError, ValueError):
            continue
    return below, above
