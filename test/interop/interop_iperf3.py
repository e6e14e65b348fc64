#!/usr/bin/env python3
"""Unmodified iperf3 server on Twinstack, stock iperf3 client at the other end: both directions, several streams, under
constant forced moves. iperf3 does not look at the content: what counts is that it ends well and moves data
in every second."""

import json
import sys
import time

import testbed
from bed.load import Moves

CASES = [
    ("up", []),
    ("down", ["-R"]),
    ("bidir", ["--bidir"]),
    ("four-streams-up", ["-P", "4"]),
    ("four-streams-down", ["-P", "4", "-R"]),
    ("small-blocks", ["-l", "200", "-P", "2"]),
]


def rates(report):
    """Mbit/s received in each direction, from iperf3's own sums at the receiving end."""
    end = report["end"]
    sums = [end[key]["bits_per_second"] for key in ("sum_received", "sum_received_bidir_reverse") if key in end]
    return [value / 1e6 for value in sums]


def check_report(report, seconds):
    testbed.expect("error" not in report, report.get("error", ""))
    values = rates(report)
    testbed.expect(values and all(value > 0 for value in values), "a direction moved nothing")
    # Intervals at the ends are short; in between every second must have moved something.
    for interval in report["intervals"][1:-1]:
        testbed.expect(interval["sum"]["bytes"] > 0, f"nothing moved in second {interval['sum']['start']:.0f}")
    testbed.expect(report["end"]["sum_received"]["seconds"] >= seconds * 0.8, "it ended early")
    return values


def wait_until_over(bed, limit_s=10):
    """Until the server's kernel has no connection left. The client closes without having read all; what the kernel
    then still has to send, after a retransmission timeout perhaps, draws a RST that belongs to this case."""
    deadline = time.monotonic() + limit_s
    while True:
        states = ["state", "connected", "exclude", "time-wait"]
        code, out, err = bed.srv.run(["ss", "-Htn", *states, "sport", "=", ":5201"])
        testbed.expect(code == 0, f"ss: {err.strip()}")
        if not out.strip():
            return
        testbed.expect(time.monotonic() < deadline, f"connections stay after the end: {out.strip()}")
        time.sleep(0.02)


def run_case(bed, service, args, family, options):
    seconds = max(1, round(args.duration))
    watch = testbed.PeerWatch(bed)
    server = bed.srv.spawn(service.run_under(["iperf3", "-s", "-1", "--forceflush", "-p", "5201"]), name="iperf3 -s")
    server.wait_ready(r"listening on")
    with Moves(service, args.interval_ms, seconds + 30) as moves:
        code, out, err = bed.cli.run(
            ["iperf3", "-c", bed.srv.address(family), "-p", "5201", "-J", "-t", seconds, *options],
            timeout_s=seconds + 30)
    testbed.expect(code == 0, f"client's exit code {code}: {err.strip() or out[-300:]}")
    values = check_report(json.loads(out), seconds)
    server_code = server.finish(10)
    testbed.expect(server_code == 0, f"server's exit code {server_code}: {server.tail()}")
    wait_until_over(bed)
    watch.stop().check()
    counters = watch.counters
    return (" + ".join(f"{value:.0f}" for value in values) + " Mbit/s, " + moves.text() +
            f", peer: {counters['TcpRetransSegs']} retransmissions, {counters['TcpExtTCPTimeouts']} RTO")


def main():
    args = testbed.arguments(__doc__, duration=4.0).parse_args()
    testbed.exit_if_unavailable(args.no_service)
    cases = testbed.Cases("iperf3 -s" + (", kernel only" if args.no_service else " under forced moves"))
    with testbed.Bed(queues=2) as bed:
        cases.after_failure = bed.end_programs
        service = bed.service_for(args)
        for family in testbed.families(args):
            for name, options in CASES:
                if args.only in name:
                    cases.run(f"iperf3 {name} IPv{family}", run_case, bed, service, args, family, options)
        cases.run("service ends well", service.stop)
    return cases.summary()


if __name__ == "__main__":
    sys.exit(testbed.main(main))
