#!/usr/bin/env python3
"""Ten thousand moves under load on a loss-free link: wrong bytes, RSTs, RTOs, the pauses, and the retransmissions
beside those of a control run without moves (the link loses nothing, yet a kernel retransmits now and then anyway)."""

import os
import sys
import time

sys.path.insert(0, os.path.join(os.path.dirname(os.path.realpath(__file__)), "..", "test", "interop"))
import testbed  # noqa: E402
from bed.load import StreamPair  # noqa: E402

# Fixed loads, so that a run without moves is comparable: streams in both directions and small requests beside them.
STREAMS = ["-c", "8", "--rate", "4000000", "--write-max", "20000"]
REQUESTS = ["-c", "24", "--request", "64", "--response", "64"]
# What the peer may have got twice from us beyond the control run: the noise of a loaded machine.
REPEATED_NOISE = 30
AIM_US = {"offload": (50, 200), "upload": (100, 300)}  # median, p99, on a machine that does nothing else


class Load:
    """Both kinds of load for a number of seconds, whether moves go on or not."""

    def __init__(self, bed, service, family, seconds):
        self.pairs = [
            StreamPair(bed, service, family, ["--loop", "edge", "--rate", "4000000", "--write-max", "20000"],
                       [*STREAMS, "-d", seconds]),
            StreamPair(bed, service, family, ["--loop", "level"], [*REQUESTS, "-d", seconds]),
        ]

    def start(self):
        for pair in self.pairs:
            pair.start_client()

    def running(self):
        return all(pair.client.running() for pair in self.pairs)

    def check(self):
        """Bytes that were compared. Raises Failed if one was wrong."""
        total = 0
        for pair in self.pairs:
            ours, theirs = pair.check(60)
            total += ours["bytes_received"] + theirs["bytes_received"]
        return total


def run(bed, service, args, family, moves_wanted, seconds, progress):
    """Loads for `seconds`, or until so many moves were made. {label: value}"""
    watch = testbed.PeerWatch(bed, full=args.capture)
    load = Load(bed, service, family, seconds)
    before = service.stats()
    load.start()
    start = time.monotonic()
    if moves_wanted and service.active:
        service.churn(args.interval_ms, int(seconds))
    stats = before
    while load.running() and time.monotonic() - start < seconds + 5:
        time.sleep(0.25)
        if moves_wanted and service.active:
            stats = service.stats(before)
            progress.update(f"{stats.total_moves()} of {moves_wanted} moves")
            if stats.total_moves() >= moves_wanted:
                service.churn(args.interval_ms, 0)
                break
        else:
            progress.update("control run without moves")
    compared = load.check()
    stats = service.stats(before)
    watch.stop()
    return {
        "seconds": f"{time.monotonic() - start:.1f}",
        "moves to the engine": stats.moves("offload"),
        "moves to the kernel": stats.moves("upload"),
        "bytes compared": testbed.size(compared),
        "wrong bytes": 0,  # check() raised otherwise
        "RST on the wire": len(watch.bad_resets),
        "RTOs of the peer": watch.counters["TcpExtTCPTimeouts"],
        "spurious RTOs of the peer": watch.counters["TcpExtTCPSpuriousRTOs"],
        "retransmissions of the peer": watch.counters["TcpRetransSegs"],
        "D-SACKs at the peer (we repeated)": watch.counters["TcpExtTCPDSACKOldSent"],
        "D-SACKs from us (it repeated)": watch.counters["TcpExtTCPDSACKRecv"],
        "retransmissions on the wire, from us": watch.analysis.retransmitted_by_source.get(
            bed.srv.address(family), 0) if args.capture else "-",
        **{name.replace("_", " "): stats.counter(name) for name in stats.FAILURES},
    }, stats


def main():
    parser = testbed.arguments(__doc__, duration=25.0, interval_ms=50.0)
    parser.add_argument("--moves", type=int, default=10_000)
    parser.add_argument("--capture", action="store_true", help="capture all packets: retransmissions on the wire")
    args = parser.parse_args()
    testbed.exit_if_unavailable(args.no_service)
    family = 6 if args.family == "6" else 4
    progress = testbed.Progress()
    with testbed.Bed() as bed:
        service = bed.service_for(args)
        control, _ = run(bed, service, args, family, 0, args.duration, progress)
        moved, stats = run(bed, service, args, family, args.moves, args.duration, progress)
        service.stop()
    progress.done()
    print(testbed.table([(label, control[label], moved[label]) for label in control],
                        headings=["IPv%d, %d connections" % (family, 32), "no moves", "moves"]))
    rows = [(direction, *(f"{stats.pause_us(direction)[key]:.0f}" for key in ("p50", "p99", "max")),
             "p50 %d, p99 %d" % AIM_US[direction]) for direction in stats.DIRECTIONS]
    print(testbed.table(rows, headings=["pause of a connection, us", "p50", "p99", "max", "aim"]))
    repeated = "D-SACKs at the peer (we repeated)"
    bad = (moved["RST on the wire"] or moved["RTOs of the peer"]
           or moved[repeated] > control[repeated] + REPEATED_NOISE
           or (not args.no_service and stats.total_moves() < args.moves))
    return 1 if bad else 0


if __name__ == "__main__":
    sys.exit(testbed.main(main))
