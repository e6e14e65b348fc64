#!/usr/bin/env python3
"""A Python server on the selectors module (epoll, poll, select), unmodified, on Twinstack under forced moves."""

import os
import sys

import testbed
from bed.load import Moves, start_server

PROGRAM = os.path.join(testbed.ROOT, "test", "peers", "selectors_server.py")


def run_case(bed, service, args, family, selector, upper):
    flags = ["--upper"] if upper else []
    watch = testbed.PeerWatch(bed)
    server, port = start_server(bed, service, ["python3", PROGRAM, "server", "--selector", selector, *flags])
    done = {"connections": 0, "bytes": 0}
    # One round after the other, as many as fit: Python's speed decides how much that is.
    with Moves(service, args.interval_ms, args.duration * 10 + 60) as moves:
        for round_number in range(max(1, round(args.duration))):
            code, out, err = bed.cli.run(
                ["python3", PROGRAM, "client", "--host", bed.srv.address(family), "--port", port,
                 "--seed", round_number, "--connections", 8, "--bytes", 4_000_000, *flags], timeout_s=90)
            testbed.expect(code == 0, f"client: exit code {code}: {out.strip()} {err.strip()[-300:]}; "
                                      f"server: {server.tail()}")
            report = testbed.last_json(out)
            for key in done:
                done[key] += report[key]
    code = server.stop()
    testbed.expect(code == 0, f"server: exit code {code}: {server.tail()}")
    testbed.expect(server.out.last_json()["bytes_received"] == done["bytes"], "the server counted other bytes")
    watch.stop().check()
    return f"{done['connections']} connections, {testbed.size(done['bytes'])} echoed and compared, {moves.text()}"


def main():
    args = testbed.arguments(__doc__, duration=3.0).parse_args()
    testbed.exit_if_unavailable(args.no_service)
    cases = testbed.Cases("Python selectors server" + (", kernel only" if args.no_service else " under forced moves"))
    with testbed.Bed(queues=2) as bed:
        cases.after_failure = bed.end_programs
        service = bed.service_for(args)
        for family in testbed.families(args):
            for selector, upper in (("epoll", False), ("poll", False), ("select", False), ("epoll", True)):
                name = selector + ("-upper-case" if upper else "")
                if args.only in name:
                    cases.run(f"selectors {name} IPv{family}", run_case, bed, service, args, family, selector, upper)
        cases.run("service ends well", service.stop)
    return cases.summary()


if __name__ == "__main__":
    sys.exit(testbed.main(main))
