#!/usr/bin/env python3
"""stream_peer against the kernel's stack at the other end: every form of readiness and I/O, small and large writes,
slow readers, many connections, request/response; every byte checked, both digests compared, under forced moves."""

import sys

import testbed
from bed.load import Moves, StreamPair

# Small buffers: a slow reader is one that the sender waits for, and little has to be drained at the end.
SMALL_BUFFERS = ["--buffer", "65536"]
SLOW_READER = ["--slow-reader-us", "2000", "--read-max", "16384"]

# name, server's options, client's options besides the duration
MATRIX = [
    ("level", ["--loop", "level"], ["-c", "8"]),
    ("edge", ["--loop", "edge"], ["-c", "8"]),
    ("poll", ["--loop", "poll"], ["-c", "8"]),
    ("threads", ["--loop", "threads"], ["-c", "4"]),
    ("sendrecv", ["--io", "sendrecv"], ["-c", "4"]),
    ("vector", ["--io", "vector", "--loop", "edge"], ["-c", "4"]),
    ("message", ["--io", "message", "--loop", "threads"], ["-c", "4"]),
    ("small-writes", ["--write-max", "50"], ["-c", "8", "--write-max", "50", "--pause-permille", "100"]),
    ("large-writes", ["--write-min", "200000", "--write-max", "1000000"],
     ["-c", "2", "--write-min", "200000", "--write-max", "1000000"]),
    ("slow-server-reader", [*SLOW_READER, *SMALL_BUFFERS], ["-c", "4", *SMALL_BUFFERS]),
    ("slow-client-reader", ["--loop", "edge", *SMALL_BUFFERS], ["-c", "4", *SLOW_READER, *SMALL_BUFFERS]),
    ("request-response-small", ["--loop", "edge"], ["-c", "16", "--request", "64", "--response", "64"]),
    ("request-response-large", [], ["-c", "4", "--request", "200", "--response", "300000"]),
    ("rated", ["--rate", "200000"], ["-c", "32", "--rate", "200000"]),
]


def run_case(bed, service, args, family, server_args, client_args):
    watch = testbed.PeerWatch(bed)
    pair = StreamPair(bed, service, family, server_args, [*client_args, "-d", args.duration])
    with Moves(service, args.interval_ms, args.duration + 30) as moves:
        pair.start_client()
        ours, theirs = pair.check(args.duration + 40)
    watch.stop().check()
    volume = testbed.size(ours["bytes_sent"] + theirs["bytes_sent"])
    return f"{volume}, {ours['connections']} connections, stall {ours['longest_stall_ms']:.0f} ms, {moves.text()}"


def churn_case(bed, service, args, family):
    """Connections that come and go while moves go on: handshakes and ends on the kernel, data on either."""
    watch = testbed.PeerWatch(bed)
    total = int(100 * args.duration)
    # Each lives for 100 ms, some moves long, however fast the machine is.
    pair = StreamPair(bed, service, family, ["--loop", "edge", "--rate", "1000000"],
                      ["-c", "8", "--total", total, "-n", "100000", "--rate", "1000000"])
    with Moves(service, args.interval_ms, args.duration * 10 + 30) as moves:
        pair.start_client()
        ours, _ = pair.check(args.duration * 10 + 40)
    watch.stop().check()
    testbed.expect(ours["connections"] == total, f"{ours['connections']} of {total} connections")
    return f"{total} connections one after the other, {moves.text()}"


def main():
    parser = testbed.arguments(__doc__, duration=3.0)
    args = parser.parse_args()
    testbed.exit_if_unavailable(args.no_service)
    cases = testbed.Cases("streams under forced moves" if not args.no_service else "streams, kernel only")
    with testbed.Bed(queues=2) as bed:
        cases.after_failure = bed.end_programs
        service = bed.service_for(args)
        for family in testbed.families(args):
            for name, server_args, client_args in MATRIX:
                if args.only in name:
                    cases.run(f"stream {name} IPv{family}", run_case, bed, service, args, family, server_args,
                              client_args)
            if args.only in "come-and-go":
                cases.run(f"stream come-and-go IPv{family}", churn_case, bed, service, args, family)
        cases.run("service ends well", service.stop)
    return cases.summary()


if __name__ == "__main__":
    sys.exit(testbed.main(main))
