"""Two network namespaces joined by veth: `srv`, where the service and the servers run, and `cli`, where strangers are.

Addresses of link x: 10.78.x.1/24 and fd78:x::1/64 in `srv`, .2 and ::2 in `cli`, no duplicate address detection.
Programs enter by `nsenter --net=` and not by `ip netns exec`, which would hide the cgroup mount from the service.
"""

import glob
import ipaddress
import itertools
import os
import pwd
import shutil
import tempfile

from bed import processes

_SCRATCH_PREFIX = "/tmp/ts-bed-"
_numbers = itertools.count()


class BedError(RuntimeError):
    """The bed could not be set up; the text says why and what to do."""


def _ip(*args):
    code, _, err = processes.capture_output(["ip", *args])
    if code != 0:
        raise BedError(f"ip {' '.join(args)}: {err.strip()}")


def why_unavailable():
    """Why namespaces cannot be had here, for a skip; empty when they can."""
    if os.geteuid() != 0:
        return "network namespaces need root: run it with sudo"
    for tool in ("ip", "nsenter", "taskset", "tcpdump"):
        if shutil.which(tool) is None:
            return f"'{tool}' is not installed: run tools/install-deps"
    name = f"ts-{os.getpid()}-probe"
    code, _, err = processes.capture_output(["ip", "netns", "add", name])
    if code != 0:
        return f"cannot make a network namespace ({err.strip()}): the container needs CAP_SYS_ADMIN"
    processes.capture_output(["ip", "netns", "del", name])
    return ""


def _alive(pid):
    return os.path.exists(f"/proc/{pid}")


def remove_leftovers():
    """Removes processes, namespaces and scratch folders of beds whose script no longer lives."""
    for path in glob.glob(_SCRATCH_PREFIX + "*"):
        owner = path[len(_SCRATCH_PREFIX):].split("-")[0]
        if owner.isdigit() and not _alive(owner):
            processes.end_leftovers(os.path.join(path, "pids"))
            shutil.rmtree(path, ignore_errors=True)
    for path in glob.glob("/run/netns/ts-*-*-srv") + glob.glob("/run/netns/ts-*-*-cli") + \
            glob.glob("/run/netns/ts-*-*-mid"):
        name = os.path.basename(path)
        owner = name.split("-")[1]
        if owner.isdigit() and not _alive(owner):
            processes.capture_output(["ip", "netns", "del", name])


def make_scratch():
    path = tempfile.mkdtemp(prefix=f"{_SCRATCH_PREFIX}{os.getpid()}-")
    os.chmod(path, 0o755)  # programs that run as another user look into it
    return path


class Namespace:
    """One end of the link."""

    def __init__(self, name, interface, host_number, registry):
        self.name = name
        self.interface = interface
        self._host = host_number
        self._registry = registry

    def address(self, family=4, link=0):
        return f"10.78.{link}.{self._host}" if family == 4 else f"fd78:{link}::{self._host}"

    def addresses(self, link=0):
        """All of this side, as inet_ntop writes them."""
        return {str(ipaddress.ip_address(self.address(family, link))) for family in (4, 6)}

    def enter(self, argv, cpus=None, user=None):
        """The command line that runs `argv` in here; every wrapper execs, so the pid stays the program's."""
        command = ["nsenter", f"--net=/run/netns/{self.name}"]
        if cpus is not None:
            command += ["taskset", "-c", str(cpus)]
        if user is not None:
            entry = pwd.getpwnam(user)
            command += ["setpriv", f"--reuid={entry.pw_uid}", f"--regid={entry.pw_gid}", "--clear-groups"]
        return command + [str(word) for word in argv]

    def spawn(self, argv, name=None, cpus=None, cwd=None, user=None):
        return self._registry.start(self.enter(argv, cpus, user), name or os.path.basename(str(argv[0])), cwd)

    def run(self, argv, timeout_s=30, cpus=None):
        """Runs to the end; (exit code, stdout, stderr)."""
        return processes.capture_output(self.enter(argv, cpus), timeout_s)

    def check(self, argv, timeout_s=30):
        code, out, err = self.run(argv, timeout_s)
        if code != 0:
            raise BedError(f"{' '.join(map(str, argv))} in {self.name}: {err.strip()}")
        return out

    def sysctl(self, key, value):
        """Best effort: a key that this kernel lacks is left alone."""
        path = "/proc/sys/" + key.replace(".", "/")
        return self.run(["sh", "-c", f"echo {value} > {path}"])[0] == 0

    def receive_on_cpu(self, cpu):
        """Packets that come in are processed on that CPU (RPS), as a NIC with its interrupt there would do.

        Without it the sender's CPU does the receiver's work on veth, and no side can be measured.
        """
        script = f"for q in /sys/class/net/{self.interface}/queues/rx-*; do echo {1 << cpu:x} > $q/rps_cpus; done"
        # /sys shows the namespace of its mount, hence `ip netns exec` here.
        code, _, err = processes.capture_output(["ip", "netns", "exec", self.name, "sh", "-c", script])
        if code != 0:
            raise BedError(f"cannot set rps_cpus in {self.name}: {err.strip()}")


class Link:
    """The pair of namespaces; close() removes both."""

    def __init__(self, registry, queues=1, mtu=1500):
        self.number = next(_numbers)
        base = f"ts-{os.getpid()}-{self.number}"
        self.srv = Namespace(f"{base}-srv", "ts-srv0", 1, registry)
        self.cli = Namespace(f"{base}-cli", "ts-cli0", 2, registry)
        try:
            self._create(queues, mtu)
        except BaseException:
            self.close()
            raise

    def _create(self, queues, mtu):
        for side in (self.srv, self.cli):
            _ip("netns", "add", side.name)
        count = str(queues)
        _ip("link", "add", self.srv.interface, "netns", self.srv.name, "numtxqueues", count, "numrxqueues", count,
            "type", "veth",
            "peer", "name", self.cli.interface, "netns", self.cli.name, "numtxqueues", count, "numrxqueues", count)
        for side in (self.srv, self.cli):
            side.sysctl("net.ipv4.tcp_congestion_control", "cubic")  # a namespace inherits the host's default
            side.sysctl("net.ipv6.conf.all.accept_dad", 0)
            self._configure(side, mtu)

    @staticmethod
    def _configure(side, mtu):
        net = ("-n", side.name)
        _ip(*net, "link", "set", side.interface, "mtu", str(mtu))
        _ip(*net, "addr", "add", side.address(4) + "/24", "dev", side.interface)
        _ip(*net, "addr", "add", side.address(6) + "/64", "dev", side.interface, "nodad")
        _ip(*net, "link", "set", "lo", "up")
        _ip(*net, "link", "set", side.interface, "up")

    def close(self):
        for side in (self.srv, self.cli):
            if os.path.exists(f"/run/netns/{side.name}"):
                processes.capture_output(["ip", "netns", "del", side.name])
