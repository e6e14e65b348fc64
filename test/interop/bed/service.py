"""`twinstack service` as the scripts see it, and a stand-in with the same face for runs on the kernel alone.

What is used of the command (docs/cli.md; JSON with -j):
  service --interface IF@NETNS --socket PATH --policy manual|all|auto    prints a line `ready` on stdout
  ls           {"connections": [{"stack": "kernel"|"engine"|..., ...}, ...]}
  offload|upload FILTER    {"matched", "moved", "already", "refused": [...]}; exit code 1 when something was refused
  stats        {"offload": {"p50_us", "p99_us", "max_us"}, "upload": {...}, "counters": {"offloads", "uploads", ...}}
  churn --interval-ms N --duration-s S     the driver alternates all connections by itself; S = 0 ends it
"""

import json
import os

from bed import processes
from bed.netns import BedError

ROOT = os.path.realpath(os.path.join(os.path.dirname(__file__), "..", "..", ".."))


def build_dir():
    """The build that is tried: TWINSTACK_BUILD, or build/release."""
    return os.path.realpath(os.environ.get("TWINSTACK_BUILD", os.path.join(ROOT, "build", "release")))


def program(name):
    path = os.path.join(build_dir(), "bin", name)
    if not os.path.exists(path):
        raise BedError(f"{path} is not built: cmake --preset release && cmake --build --preset release")
    return path


class MoveStats:
    """The service's counts, as differences to an earlier call of stats."""

    DIRECTIONS = ("offload", "upload")
    FAILURES = ("offload_refused", "offload_failed", "upload_failed", "drain_deadlines", "broken_streams",
                "broken_sessions", "congestion_not_restored")

    def __init__(self, raw, before=None):
        self.raw = raw
        self._before = before.raw if before else {}

    def counter(self, name):
        return self.raw.get("counters", {}).get(name, 0) - self._before.get("counters", {}).get(name, 0)

    def moves(self, direction):
        return self.counter(direction + "s")

    def total_moves(self):
        return sum(self.moves(direction) for direction in self.DIRECTIONS)

    def pause_us(self, direction):
        """{"p50":, "p99":, "max":} since the service started; zeros when nothing was measured."""
        found = self.raw.get(direction, {})
        return {key: found.get(key + "_us", 0) for key in ("p50", "p99", "max")}

    def failures(self):
        """{name: count} of what went wrong or was refused, without the zeros."""
        found = {name: self.counter(name) for name in self.FAILURES}
        return {name: count for name, count in found.items() if count}


class Service:
    """A running service on the server's end of a link."""

    active = True

    def __init__(self, link, registry, scratch, policy="manual", cpus=None, extra_args=()):
        self._registry = registry
        self._socket = os.path.join(scratch, f"twinstack-{link.number}.sock")
        self._twinstack = program("twinstack")
        self._preload = os.path.join(build_dir(), "lib", "libtwinstack-preload.so")
        if not os.path.exists(self._preload):
            raise BedError(f"{self._preload} is not built")
        argv = ["taskset", "-c", str(cpus)] if cpus is not None else []
        argv += [self._twinstack, "service", "--interface", f"{link.srv.interface}@{link.srv.name}",
                 "--socket", self._socket, "--policy", policy, *extra_args]
        self.child = registry.start(argv, "twinstack service")
        self.child.wait_ready(r"^ready\b", timeout_s=20)

    @property
    def pid(self):
        return self.child.pid

    def run_under(self, argv):
        """The command line that runs an unmodified program on the socket layer."""
        return ["env", f"LD_PRELOAD={self._preload}", f"TWINSTACK_SOCKET={self._socket}", *argv]

    def open_to_others(self):
        """True when a program of another user can reach the socket."""
        try:
            return bool(os.stat(self._socket).st_mode & 0o002)
        except OSError:
            return False

    def command(self, *args, timeout_s=30):
        """(exit code, stdout, stderr) of the twinstack command."""
        return processes.capture_output(
            ["env", f"TWINSTACK_SOCKET={self._socket}", self._twinstack, *map(str, args)], timeout_s)

    def _json(self, *args):
        code, out, err = self.command(*args, "-j")
        try:
            return json.loads(out)  # also with exit code 1: some were refused
        except ValueError:
            text = err.strip() or out.strip() or self.child.tail()
            raise BedError(f"twinstack {' '.join(map(str, args))}: exit code {code}: {text}") from None

    def ls(self):
        found = self._json("ls")
        return found["connections"] if isinstance(found, dict) else found

    def count_on(self, stack):
        return sum(1 for connection in self.ls() if connection.get("stack") == stack)

    def move(self, direction, what="all"):
        """direction: offload or upload."""
        return self._json(direction, what)

    def stats(self, before=None):
        return MoveStats(self._json("stats"), before)

    def account(self, before):
        """What the service counted since, and the last warnings and errors of its log: for a case that has failed."""
        counts = self.stats(before)
        changed = {name: counts.counter(name) for name in counts.raw.get("counters", {}) if counts.counter(name)}
        lines = self.child.err.text().splitlines()
        told = [line for line in lines if " info " not in line] or lines  # a line of spdlog: time, level, text
        return "\n".join([f"service: {json.dumps(changed)}", *told[-20:]])

    def churn(self, interval_ms, duration_s):
        """Makes the driver move all connections to and fro for so long; duration 0 ends it at once."""
        code, out, err = self.command("churn", "--interval-ms", round(interval_ms), "--duration-s", duration_s)
        if code != 0:
            raise BedError(f"twinstack churn: exit code {code}: {err.strip() or out.strip() or self.child.tail()}")

    def stop(self):
        """SIGTERM: every connection goes back to the kernel first. Raises when the service did not end well."""
        was_running = self.child.running()
        code = self.child.stop(timeout_s=20)
        if not was_running or code != 0:
            raise BedError(f"the service ended badly (exit code {code}): {self.child.tail()}")


class NoService:
    """The kernel alone."""

    active = False
    pid = None

    def run_under(self, argv):
        return list(argv)

    def open_to_others(self):
        return True

    def ls(self):
        return []

    def count_on(self, _stack):
        return 0

    def move(self, _direction, _what="all"):
        return {}

    def stats(self, before=None):
        return MoveStats({}, before)

    def account(self, _before):
        return "service: none"

    def churn(self, _interval_ms, _duration_s):
        pass

    def stop(self):
        pass
