#!/usr/bin/env python3
"""Goodput of both stacks over the same bad link: delay, loss and a rate that the program `impair` makes between two
namespaces. One stream at a time from the server to a client on the kernel; rounds alternate, each pair with the same
seed of losses; medians."""

import os
import sys

sys.path.insert(0, os.path.join(os.path.dirname(os.path.realpath(__file__)), "..", "test", "interop"))
import testbed  # noqa: E402
from bed.impaired import ImpairedLink  # noqa: E402

KERNEL, ENGINE = "kernel", "engine"


def measure(bed, stack, args, seed):
    """One download of `--duration` seconds; bytes a second."""
    bed.link.start("--delay-ms", args.rtt_ms / 2, "--loss-percent", args.loss, "--rate-mbit", args.rate_mbit,
                   "--queue-frames", args.queue, "--seed", seed)
    service = bed.start_service(policy="all") if stack == ENGINE else bed.no_service()
    server = bed.srv.spawn(service.run_under([testbed.program("stream_peer"), "server", "-b", bed.srv.address(4),
                                              "--write-min", 16384, "--write-max", 65536]), name="stream_peer")
    port = server.wait_ready().group(1)
    client = bed.cli.spawn([testbed.program("stream_peer"), "client", "-H", bed.srv.address(4), "-p", port, "-c",
                            args.connections, "--bytes-up", 0, "--bytes-down", 0, "-d", args.duration,
                            "--stall-limit", 60], name="client")
    code = client.finish(args.duration + 90)
    report = client.out.last_json()
    testbed.expect(code == 0 and report, f"client: exit code {code}: {client.tail()}")
    moves = service.stats().moves("offload") if stack == ENGINE else 0
    server.stop()
    service.stop()
    testbed.expect(stack == KERNEL or moves >= args.connections, "the connections were not moved to the engine")
    return report["bytes_sent" if args.up else "bytes_received"] / report["seconds"]


def main():
    parser = testbed.arguments(__doc__, duration=10.0)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--connections", type=int, default=1)
    parser.add_argument("--rtt-ms", type=float, default=50)
    parser.add_argument("--loss", type=float, default=1.0, help="percent, each way")
    parser.add_argument("--rate-mbit", type=float, default=0)
    parser.add_argument("--queue", type=int, default=200, help="full frames that wait at that rate")
    parser.add_argument("--up", action="store_true", help="what the server receives, not what it sends")
    parser.add_argument("--congestion", default="cubic", help="congestion control of the server's side")
    args = parser.parse_args()
    testbed.exit_if_unavailable(args.no_service)
    stacks = [KERNEL] if args.no_service else [KERNEL, ENGINE]
    rates = {stack: [] for stack in stacks}
    progress = testbed.Progress()
    with testbed.Bed(link=ImpairedLink) as bed:
        for side in (bed.srv, bed.cli):
            testbed.expect(side.sysctl("net.ipv4.tcp_congestion_control", args.congestion),
                           f"{args.congestion} is not allowed in a namespace: add it to "
                           "net.ipv4.tcp_allowed_congestion_control of the initial one")
        for number in range(args.rounds):
            for stack in stacks if number % 2 == 0 else reversed(stacks):
                progress.update(f"round {number + 1} of {args.rounds}, {stack}", force=True)
                rates[stack].append(measure(bed, stack, args, number + 1))
    progress.done()
    print(f"{args.connections} x {args.congestion}, {args.loss:g} % loss each way, {args.rtt_ms:g} ms, "
          f"{args.rate_mbit or 'unlimited'} Mbit/s, {args.rounds} rounds of {args.duration:g} s")
    for stack, values in rates.items():
        print(f"  {stack}: median {testbed.median(values) * 8e-6:.2f} Mbit/s "
              f"({', '.join(f'{v * 8e-6:.2f}' for v in values)})")
    if ENGINE in rates:
        print(f"  engine / kernel: x {testbed.median(rates[ENGINE]) / testbed.median(rates[KERNEL]):.2f}")
    return 0


if __name__ == "__main__":
    sys.exit(testbed.main(main))
