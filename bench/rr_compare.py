#!/usr/bin/env python3
"""Request/response over both stacks: the same server program, client, link and cores, alternating rounds, medians."""

import json
import os
import sys
from dataclasses import asdict

sys.path.insert(0, os.path.join(os.path.dirname(os.path.realpath(__file__)), "..", "test", "interop"))
import testbed  # noqa: E402
from bed import compare  # noqa: E402


def main():
    parser = testbed.arguments(__doc__, duration=5.0)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--connections", type=int, default=64)
    parser.add_argument("--size", type=int, default=64, help="bytes of request and response")
    parser.add_argument("--service-arg", action="append", default=[], help="passed on to `twinstack service`")
    parser.add_argument("--json", metavar="FILE", help="write all rounds and the medians")
    args = parser.parse_args()
    testbed.exit_if_unavailable(args.no_service)
    server_core, client_core = compare.cores()
    setup = compare.Setup(connections=args.connections, size_bytes=args.size, seconds=args.duration,
                          family=6 if args.family == "6" else 4, server_core=server_core, client_core=client_core,
                          service_args=tuple(args.service_arg))
    stacks = [compare.KERNEL] if args.no_service else [compare.KERNEL, compare.ENGINE]
    progress = testbed.Progress()
    with testbed.Bed() as bed:
        results = compare.run(bed, stacks, args.rounds, setup, progress)
    progress.done()
    medians = compare.summary(results)
    print(f"{args.connections} connections, {args.size} bytes, IPv{setup.family}, {args.rounds} rounds of "
          f"{args.duration:g} s; server's side on core {server_core}, client's on core {client_core}")
    print(compare.result_table(medians))
    if args.json:
        with open(args.json, "w", encoding="utf-8") as file:
            json.dump({"medians": medians, "rounds": [asdict(r) for r in results]}, file, indent=1)
    return 0


if __name__ == "__main__":
    sys.exit(testbed.main(main))
