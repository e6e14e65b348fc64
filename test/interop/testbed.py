"""Test bed of the interop scripts, the demo and the benchmarks (Python 3 standard library only, Linux, root).

    import testbed
    with testbed.Bed() as bed:
        service = bed.start_service()                # or bed.no_service(): the kernel alone
        server = bed.srv.spawn(service.run_under([testbed.program("rr_server")]))
        port = server.wait_ready().group(1)
        code, out, err = bed.cli.run([testbed.program("rr_client"), "-H", bed.srv.address(4), "-p", port])

A bed is a pair of namespaces joined by veth, all programs started in it and a scratch folder. Leaving the `with` block,
by an exception, SIGINT or SIGTERM too, ends every program and removes the namespaces; what a killed script left behind
is removed by the next bed.
"""

import argparse
import os
import shutil
import signal
import sys

sys.path.insert(0, os.path.dirname(os.path.realpath(__file__)))
sys.dont_write_bytecode = True

from bed import netns, processes, service  # noqa: E402
from bed.capture import END_FILTER, Analysis, Capture  # noqa: E402,F401
from bed.counters import (PEER_COUNTERS, TcpCounters, core_busy_us, cpu_us, cpu_us_of_threads,  # noqa: E402,F401
                          median, percentile)
from bed.netns import BedError, why_unavailable  # noqa: E402,F401
from bed.processes import ProcessError, capture_output, last_json  # noqa: E402,F401
from bed.report import Cases, Failed, Progress, difference, expect, microseconds, size, table  # noqa: E402,F401
from bed.service import ROOT, MoveStats, NoService, Service, build_dir, program  # noqa: E402,F401

SKIPPED = 77  # exit code of a script that could not run here


def _raise_interrupt(number, _frame):
    raise KeyboardInterrupt(f"signal {number}")


class Bed:
    """See the module's text. One bed at a time per thread; several per process are fine."""

    def __init__(self, queues=1, mtu=1500, link=netns.Link):
        netns.remove_leftovers()
        signal.signal(signal.SIGTERM, _raise_interrupt)
        signal.signal(signal.SIGHUP, _raise_interrupt)
        self.scratch = netns.make_scratch()
        self._registry = processes.Registry(os.path.join(self.scratch, "pids"))
        self._kept = []
        try:
            self.link = link(self._registry, queues, mtu)
        except BaseException:
            shutil.rmtree(self.scratch, ignore_errors=True)
            raise
        self.srv = self.link.srv
        self.cli = self.link.cli

    def __enter__(self):
        return self

    def __exit__(self, *_exception):
        self.close()

    def close(self):
        """Ends all programs (latest first, so servers before the service) and removes everything."""
        blocked = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT, signal.SIGTERM, signal.SIGHUP})
        try:
            self._registry.close()
            self.link.close()
            if not os.environ.get("TESTBED_KEEP"):
                shutil.rmtree(self.scratch, ignore_errors=True)
        finally:
            signal.pthread_sigmask(signal.SIG_SETMASK, blocked)

    def start_service(self, policy="manual", cpus=None, extra_args=()):
        service = Service(self.link, self._registry, self.scratch, policy, cpus, extra_args)
        return self.keep(service)

    def keep(self, program):
        """`program` (a service or a child) outlives failed cases."""
        self._kept.append(getattr(program, "child", program))
        return program

    def end_programs(self):
        """Kills all programs but the kept ones: what a failed case left running."""
        self._registry.end_all_but(self._kept)

    def no_service(self):
        return NoService()

    def end_programs_gently(self):
        """SIGTERM to all programs of the namespaces but captures and services, latest first."""
        self._registry.stop_all_but(self._kept, skip=("tcpdump",))

    def service_for(self, args, **kwargs):
        """The service that the script's command line (see arguments()) asks for."""
        return self.no_service() if args.no_service else self.start_service(**kwargs)

    def capture(self, side, expression="tcp", limit_mb=600):
        return Capture(side, self.scratch, expression, limit_mb).start()

    def start(self, argv, name=None):
        """A program outside of the namespaces."""
        return self._registry.start(argv, name or os.path.basename(argv[0]))

    def path(self, name):
        """A file in the scratch folder, which goes away with the bed."""
        return os.path.join(self.scratch, name)


class PeerWatch:
    """Watches both sides during a case: every RST on the wire, and what the strangers' kernel counted.

    Not every RST is a fault: a program that closes a socket with unread data makes its kernel send RST+ACK (the kernel
    counts such closes), and data that is still under way to a closed socket draws a plain RST (its FIN was on the wire
    before). `program_resets` are those, `bad_resets` all others.
    """

    CLOSED_WITH_DATA = ("TcpExtTCPAbortOnClose", "TcpExtTCPAbortOnLinger", "TcpExtTCPAbortOnData")

    def __init__(self, bed, full=False):
        self._bed = bed
        self._sides = {side: TcpCounters(side) for side in (bed.srv, bed.cli)}
        self._capture = bed.capture(bed.cli, "tcp" if full else END_FILTER)
        self.analysis = None
        self.counters = {}
        self.bad_resets = []
        self.program_resets = []

    def now(self):
        """The strangers' counters so far."""
        return self._sides[self._bed.cli].delta()

    def stop(self):
        self.counters = self._sides[self._bed.cli].delta()
        self.analysis = self._capture.stop().analyse()
        self._capture.remove()
        self._judge({side: counters.all() for side, counters in self._sides.items()})
        return self

    def _judge(self, aborts):
        closed = {}  # (connection, source) -> time of its FIN
        for end in self.analysis.ends:
            closed.setdefault((end.connection(), end.source), end.time_s)
        aborted = set()
        for reset in sorted(self.analysis.resets, key=lambda r: not r.with_ack):  # those that start an abort first
            if reset.with_ack:
                explained = self._take_abort(aborts, reset.source)
            else:
                fin_s = closed.get((reset.connection(), reset.source))
                explained = reset.connection() in aborted or (fin_s is not None and fin_s <= reset.time_s)
            if explained:
                aborted.add(reset.connection())
            (self.program_resets if explained else self.bad_resets).append(reset)

    def _take_abort(self, aborts, source):
        """True if the kernel that sent it counted one more abort than we have seen."""
        for side in self._sides:
            if source in side.addresses():
                for kind in self.CLOSED_WITH_DATA:
                    if aborts[side].get(kind, 0) > 0:
                        aborts[side][kind] -= 1
                        return True
        return False

    def check(self, allow_timeouts=True):
        """Raises Failed when the peer was hurt."""
        bad = self.bad_resets
        expect(not bad, f"{len(bad)} RST on the wire, first: {bad[0] if bad else ''}")
        for name in ("TcpInErrs", "TcpInCsumErrors"):
            expect(self.counters[name] == 0, f"the peer's kernel counted {name} = {self.counters[name]}")
        if not allow_timeouts:
            expect(self.counters["TcpExtTCPTimeouts"] == 0, f"{self.counters['TcpExtTCPTimeouts']} RTOs at the peer")


def arguments(description, **defaults):
    """The options that all scripts share; `defaults` overrides, e.g. duration=3.0."""
    parser = argparse.ArgumentParser(description=description)
    parser.add_argument("--no-service", action="store_true", help="kernel only: no engine, no moves")
    parser.add_argument("--duration", type=float, default=3.0, metavar="S", help="seconds of load per case")
    parser.add_argument("--interval-ms", type=float, default=20, metavar="N", help="forced moves: one every N ms")
    parser.add_argument("--family", choices=("4", "6", "both"), default="both")
    parser.add_argument("--only", metavar="WORD", default="", help="cases whose name contains the word")
    parser.set_defaults(**defaults)
    return parser


def families(args):
    return {"4": (4,), "6": (6,), "both": (4, 6)}[args.family]


def exit_if_unavailable(no_service=False):
    """Ends the script with SKIPPED and the reason when this machine or user cannot run it."""
    reason = why_unavailable()
    if not reason and not no_service and not os.path.exists(os.path.join(build_dir(), "bin", "twinstack")):
        reason = f"{build_dir()}/bin/twinstack is not built"
    if reason:
        print(f"SKIPPED: {reason}", flush=True)
        print("0 passed, 0 failed", flush=True)
        sys.exit(SKIPPED)


def main(function):
    """Runs a script's main function; Ctrl-C ends it quietly after the clean-up."""
    try:
        code = function()
    except KeyboardInterrupt:
        print("\ninterrupted; everything was cleaned up", file=sys.stderr)
        code = 130
    except (BedError, ProcessError, Failed) as failure:
        print(f"FAILED: {failure}", file=sys.stderr)
        code = 1
    sys.exit(code)
