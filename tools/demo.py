#!/usr/bin/env python3
"""The demo: unmodified servers whose live connections are moved between the kernel and the engine every 100 ms while
strangers talk to them, in IPv4 and IPv6; then both stacks side by side. Prints a table; the exit code is not zero if a
byte was wrong or an RST was seen. Started by ./demo, which installs and builds first."""

import os
import random
import sys
import threading
import time

ROOT = os.path.join(os.path.dirname(os.path.realpath(__file__)), "..")
sys.path.insert(0, os.path.join(ROOT, "test", "interop"))
import testbed  # noqa: E402
import interop_redis  # noqa: E402
from bed import compare  # noqa: E402
from bed.load import StreamPair, start_server  # noqa: E402

FILE_SIZES = (1, 1449, 65_537, 700_001, 5_000_000)
IPERF_PORT = 5201


class Tally:
    """What the strangers found, summed over their threads."""

    def __init__(self):
        self._lock = threading.Lock()
        self.bytes_compared = 0
        self.items = {}
        self.failures = []

    def add(self, what, count=1, compared=0):
        with self._lock:
            self.items[what] = self.items.get(what, 0) + count
            self.bytes_compared += compared

    def fail(self, text):
        with self._lock:
            self.failures.append(text)

    def snapshot(self):
        with self._lock:
            return dict(self.items), self.bytes_compared, len(self.failures)


class Stranger(threading.Thread):
    """Repeats one action until the deadline; an exception of the action is a failure and ends it."""

    def __init__(self, name, action, deadline, tally):
        super().__init__(name=name, daemon=True)
        self._action = action
        self._deadline = deadline
        self._tally = tally

    def run(self):
        try:
            while time.monotonic() < self._deadline:
                self._action(max(1.0, self._deadline - time.monotonic()))
        except Exception as failure:  # pylint: disable=broad-except  # everything that ends a stranger is a finding
            self._tally.fail(f"{self.name}: {failure}")


class Demo:
    """The first part: servers, strangers, moves."""

    def __init__(self, bed, service, args):
        self._bed = bed
        self._service = service
        self._args = args
        self._contents = {}
        self._iperf_server = None
        self._iperf_tests = 0
        self._user = self._unprivileged_user()
        self.tally = Tally()

    def _unprivileged_user(self):
        """The servers run without privileges where the build tree can be read by others."""
        readable = os.stat(testbed.build_dir()).st_mode & 0o005 == 0o005 and self._service.open_to_others()
        for folder in ("/work", ROOT):
            readable = readable and (not os.path.exists(folder) or os.stat(folder).st_mode & 0o001)
        return "nobody" if readable else None

    def start_servers(self):
        rng = random.Random(4)
        folder = self._bed.path("files")
        os.makedirs(folder)
        for size in FILE_SIZES:
            data = rng.randbytes(size)
            with open(os.path.join(folder, f"f{size}"), "wb") as file:
                file.write(data)
            self._contents[f"f{size}"] = data
        interop_redis.start_redis(self._bed, self._service, user=self._user)
        _, self._http_port = start_server(self._bed, self._service,
                                          [testbed.program("file_server"), "-b", "::", "-d", folder], user=self._user)
        self._iperf_server = self._bed.srv.spawn(
            self._service.run_under(["iperf3", "-s", "--forceflush", "-p", IPERF_PORT]), name="iperf3 -s",
            user=self._user)

    # The strangers' actions; each takes the seconds that are left.

    def _benchmark(self, family):
        pipeline = 1

        def action(_left):
            nonlocal pipeline
            pipeline = 16 if pipeline == 1 else 1
            code, out, err = self._bed.cli.run(
                ["redis-benchmark", "-h", self._bed.srv.address(family), "-p", interop_redis.PORT, "-t", "set,get",
                 "-c", 20, "-P", pipeline, "-n", 8000 * (3 if pipeline > 1 else 1), "-r", 1000, "-q"], timeout_s=60)
            testbed.expect(code == 0, f"exit code {code}: {err.strip() or out.strip()[-200:]}")
            self.tally.add("redis-benchmark runs")
        return action

    def _values(self, family):
        seed = family * 1000

        def action(left):
            nonlocal seed
            seed += 1
            seconds = min(left, 5.0)
            code, out, err = self._bed.cli.run(
                ["python3", interop_redis.VERIFIER, self._bed.srv.address(family), interop_redis.PORT, seconds, seed],
                timeout_s=seconds + 30)
            report = testbed.last_json(out)
            testbed.expect(code == 0 and report, f"exit code {code}: {out.strip()[-200:]} {err.strip()[-200:]}")
            self.tally.add("redis values", report["values"], report["bytes"])
        return action

    def _curl(self, family, seed):
        rng = random.Random(seed)
        host = self._bed.srv.address(family)
        base = f"http://{host if family == 4 else '[' + host + ']'}:{self._http_port}/"

        def action(_left):
            names = rng.choices(list(self._contents), k=6)
            paths = [self._bed.path(f"curl-{family}-{seed}-{number}") for number in range(len(names))]
            words = [word for name, path in zip(names, paths) for word in ("-o", path, base + name)]
            code, _, err = self._bed.cli.run(
                ["curl", "-sS", "-f", "-g", "--fail-early", "--max-time", "60", *words], timeout_s=90)
            findings = [f"exit code {code}: {err.strip()[-200:]}"] if code != 0 else []
            for name, path in zip(names, paths):
                if not os.path.exists(path):
                    continue  # curl has ended early
                with open(path, "rb") as file:
                    data = file.read()
                os.unlink(path)
                difference = testbed.difference(data, self._contents[name])
                if difference:
                    findings.append(f"{name}: {difference}")
                else:
                    self.tally.add("curl files", 1, len(data))
            testbed.expect(not findings, "; ".join(findings))
        return action

    def _iperf(self, family):
        def action(left):
            seconds = max(2, round(min(left, 8)))
            # It closes its listener after each test and makes another: in between a stranger is refused.
            self._iperf_tests += 1
            self._iperf_server.wait_ready(rf"listening on .*\(test #{self._iperf_tests}\)")
            code, out, err = self._bed.cli.run(
                ["iperf3", "-c", self._bed.srv.address(family), "-p", IPERF_PORT, "-t", seconds, "--bidir",
                 "-b", "200M", "-J"], timeout_s=seconds + 30)
            report = testbed.last_json(out) or {}
            testbed.expect(code == 0 and "error" not in report, f"exit code {code}: {report.get('error', err.strip())}")
            self.tally.add("iperf3 runs")
        return action

    def run_family(self, family, watch, progress):
        seconds = self._args.seconds
        pair = StreamPair(self._bed, self._service, family, ["--loop", "edge", "--rate", "3000000"],
                          ["-c", "6", "--rate", "3000000", "-d", seconds], user=self._user)
        deadline = time.monotonic() + seconds
        actions = [("redis-benchmark", self._benchmark(family)), ("redis values", self._values(family)),
                   ("curl", self._curl(family, 1)), ("curl", self._curl(family, 2)), ("iperf3", self._iperf(family))]
        strangers = [Stranger(name, action, deadline, self.tally) for name, action in actions]
        pair.start_client()
        for stranger in strangers:
            stranger.start()
        while time.monotonic() < deadline and not self.tally.failures:
            self._show(family, watch, progress)
            time.sleep(0.5)
        # Bounded by the time-outs of the strangers' own commands.
        for stranger in strangers:
            stranger.join(90)
        try:
            ours, theirs = pair.check(60)
            self.tally.add("streams", ours["connections"], ours["bytes_received"] + theirs["bytes_received"])
        except testbed.Failed as failure:
            self.tally.fail(f"streams: {failure}")

    def _show(self, family, watch, progress):
        stats = self._service.stats()
        counters = watch.now()
        _, compared, failures = self.tally.snapshot()
        progress.update(f"IPv{family}: moved {stats.moves('offload')} x to the engine, {stats.moves('upload')} x to "
                        f"the kernel; {testbed.size(compared)} compared, {failures} failures; strangers' kernel: "
                        f"{counters['TcpRetransSegs']} retransmissions, {counters['TcpExtTCPTimeouts']} RTOs")


def pauses_text(stats):
    rows = []
    for direction in stats.DIRECTIONS:
        pause = stats.pause_us(direction)
        rows.append((direction, *(f"{pause[key]:.0f}" for key in ("p50", "p99", "max"))))
    return testbed.table(rows, headings=["pause of a connection, us", "p50", "p99", "max"])


def moves_table(demo, stats, watch):
    items, compared, _ = demo.tally.snapshot()
    counters = watch.counters
    rows = [
        ("moves to the engine", stats.moves("offload")),
        ("moves to the kernel", stats.moves("upload")),
        *(("  " + name.replace("_", " "), count) for name, count in stats.failures().items()),
        ("bytes compared by digest", testbed.size(compared)),
        *(("  " + name, count) for name, count in sorted(items.items())),
        ("strangers that failed (0 = no byte was wrong)", len(demo.tally.failures)),
        ("RSTs on the wire that no program asked for", len(watch.bad_resets)),
        ("RSTs of programs that closed with unread data", len(watch.program_resets)),
        ("retransmissions by the strangers' kernel", counters["TcpRetransSegs"]),
        ("  of them found superfluous (D-SACK)", counters["TcpExtTCPDSACKRecv"]),
        ("RTOs of the strangers' kernel", counters["TcpExtTCPTimeouts"]),
        ("repeated data that it received (D-SACKs sent)", counters["TcpExtTCPDSACKOldSent"]),
    ]
    return testbed.table(rows)


def run_moves(bed, args, progress):
    """The first part. Returns the exit code."""
    service = bed.service_for(args)
    demo = Demo(bed, service, args)
    demo.start_servers()
    watch = testbed.PeerWatch(bed)
    service.churn(args.interval_ms, 3600)
    for family in testbed.families(args):
        if not demo.tally.failures:
            demo.run_family(family, watch, progress)
    service.churn(args.interval_ms, 0)
    stats = service.stats()
    bed.end_programs_gently()
    watch.stop()
    service.stop()
    progress.done()
    print("\nOne connection, two stacks: moved every %g ms while in use%s\n" %
          (args.interval_ms, " (kernel only: nothing was moved)" if args.no_service else ""))
    print(moves_table(demo, stats, watch))
    if service.active:
        print(pauses_text(stats))
    for failure in demo.tally.failures + [str(reset) for reset in watch.bad_resets[:5]]:
        print(f"  FAILED: {failure}")
    nothing_moved = service.active and stats.total_moves() == 0
    if nothing_moved:
        print("  FAILED: no connection was moved")
    return 1 if demo.tally.failures or watch.bad_resets or nothing_moved else 0


def run_comparison(bed, args, progress):
    """The second part. Returns the exit code."""
    server_core, client_core = compare.cores()
    setup = compare.Setup(seconds=args.round_seconds, warmup_s=1.0, server_core=server_core, client_core=client_core)
    stacks = [compare.KERNEL] if args.no_service else [compare.KERNEL, compare.ENGINE]
    medians = compare.summary(compare.run(bed, stacks, args.rounds, setup, progress))
    progress.done()
    print(f"\nBoth stacks: {setup.size_bytes} bytes there and back on {setup.connections} connections, {args.rounds} "
          f"rounds each;\nserver's side on core {server_core}, strangers on core {client_core}\n")
    print(compare.result_table(medians))
    return 0


def main():
    parser = testbed.arguments(__doc__, interval_ms=100.0)
    parser.add_argument("--seconds", type=float, default=20.0, help="of moves under load, for each of IPv4 and IPv6")
    parser.add_argument("--rounds", type=int, default=4, help="of the comparison, for each stack")
    parser.add_argument("--round-seconds", type=float, default=2.0)
    args = parser.parse_args()
    testbed.exit_if_unavailable(args.no_service)
    start = time.monotonic()
    progress = testbed.Progress()
    with testbed.Bed(queues=2) as bed:
        code = run_moves(bed, args, progress)
    with testbed.Bed() as bed:
        code = run_comparison(bed, args, progress) or code
    print(f"\nThe run took {time.monotonic() - start:.0f} s: " +
          ("no byte wrong, no RST." if code == 0 else "something went wrong, see above."))
    return code


if __name__ == "__main__":
    sys.exit(testbed.main(main))
