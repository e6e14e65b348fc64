#!/usr/bin/env python3
"""Unmodified redis-server on Twinstack under constant forced moves: redis-benchmark with and without pipelining, values
checked by a client of our own, BGSAVE (a fork) while it is loaded."""

import csv
import io
import os
import sys
import time

import testbed
from bed import resp
from bed.load import Moves

VERIFIER = os.path.realpath(resp.__file__)
PORT = 6379


def start_redis(bed, service, user=None):
    """redis-server on all addresses of the server's side, data in the scratch folder."""
    folder = bed.path("redis")
    os.makedirs(folder, exist_ok=True)
    os.chmod(folder, 0o777)
    server = bed.srv.spawn(
        service.run_under(["redis-server", "--port", PORT, "--bind", "0.0.0.0", "::", "--protected-mode", "no",
                           "--dir", folder, "--save", "", "--appendonly", "no", "--daemonize", "no"]),
        name="redis-server", user=user)
    server.wait_ready(r"Ready to accept connections")
    return server


def cli(bed, family, *words):
    code, out, err = bed.cli.run(["redis-cli", "-h", bed.srv.address(family), "-p", PORT, *words], timeout_s=20)
    testbed.expect(code == 0, f"redis-cli {words[0]}: exit code {code}: {err.strip()}")
    return out.strip()


def benchmark(bed, family, seconds, pipeline, clients=50, size=100, tests="set,get"):
    """redis-benchmark for about so many seconds; {test: requests per second}."""
    # Its length is a number of requests: a short run tells how fast it is here.
    def run(requests):
        code, out, err = bed.cli.run(
            ["redis-benchmark", "-h", bed.srv.address(family), "-p", PORT, "-t", tests, "-c", clients, "-P", pipeline,
             "-d", size, "-n", requests, "-r", 10000, "--csv"], timeout_s=seconds * 4 + 30)
        testbed.expect(code == 0, f"redis-benchmark: exit code {code}: {err.strip() or out.strip()[-200:]}")
        rows = list(csv.DictReader(io.StringIO(out)))
        testbed.expect(bool(rows), f"redis-benchmark printed no result: {out[-200:]} {err[-200:]}")
        return {row["test"]: float(row["rps"]) for row in rows}

    probe = run(2000 * pipeline)
    share = seconds / len(probe)
    return run(max(2000, int(min(probe.values()) * share)))


def benchmark_case(bed, service, args, family, pipeline, size):
    watch = testbed.PeerWatch(bed)
    with Moves(service, args.interval_ms, args.duration * 5 + 60) as moves:
        rates = benchmark(bed, family, args.duration, pipeline, size=size)
    watch.stop().check()
    return ", ".join(f"{name} {rate:.0f}/s" for name, rate in rates.items()) + ", " + moves.text()


def verify_case(bed, service, args, family):
    watch = testbed.PeerWatch(bed)
    with Moves(service, args.interval_ms, args.duration * 5 + 60) as moves:
        clients = [bed.cli.spawn(
            ["python3", VERIFIER, bed.srv.address(family), PORT, args.duration, 1000 * family + seed],
            name="value client") for seed in range(4)]
        results = []
        for client in clients:
            code = client.finish(args.duration + 40)
            result = client.out.last_json()
            testbed.expect(code == 0, f"value client: exit code {code}: {result or client.tail()}")
            results.append(result)
    watch.stop().check()
    values = sum(result["values"] for result in results)
    return f"{values} values, {testbed.size(sum(result['bytes'] for result in results))} compared, {moves.text()}"


def save_case(bed, service, args, family):
    """BGSAVE forks while the connections are busy; the child must leave them alone, and the file must be whole."""
    watch = testbed.PeerWatch(bed)
    saves = 0
    with Moves(service, args.interval_ms, args.duration * 5 + 60) as moves:
        loaders = [bed.cli.spawn(["python3", VERIFIER, bed.srv.address(family), PORT, args.duration, 9000 + i],
                                 name="value client") for i in range(2)]
        def control(*words):
            return cli(bed, family, *words)

        while loaders[0].running():
            before = control("LASTSAVE")
            testbed.expect("Background saving" in control("BGSAVE"), "BGSAVE was refused")
            wait_for_save(control, before)
            saves += 1
        for loader in loaders:
            code = loader.finish(args.duration + 40)
            testbed.expect(code == 0, f"value client: exit code {code}: {loader.out.last_json() or loader.tail()}")
    watch.stop().check()
    dump = os.path.join(bed.path("redis"), "dump.rdb")
    code, out, _ = testbed.capture_output(["redis-check-rdb", dump])
    testbed.expect(code == 0, f"redis-check-rdb: {out.strip()[-200:]}")
    testbed.expect(saves > 0, "no save was made")
    return f"{saves} saves, {moves.text()}"


def wait_for_save(control, before):
    """LASTSAVE has seconds only: rdb_bgsave_in_progress tells the end."""
    deadline = time.monotonic() + 30
    while time.monotonic() < deadline:
        info = control("INFO", "persistence")
        if "rdb_bgsave_in_progress:0" in info:
            testbed.expect("rdb_last_bgsave_status:ok" in info, "the save failed")
            testbed.expect(int(control("LASTSAVE")) >= int(before), "LASTSAVE went back")
            return
        time.sleep(0.02)
    raise testbed.Failed("the save did not end")


def main():
    args = testbed.arguments(__doc__, duration=3.0).parse_args()
    testbed.exit_if_unavailable(args.no_service)
    cases = testbed.Cases("redis-server" + (", kernel only" if args.no_service else " under forced moves"))
    with testbed.Bed(queues=2) as bed:
        cases.after_failure = bed.end_programs
        service = bed.service_for(args)
        server = bed.keep(start_redis(bed, service))
        for family in testbed.families(args):
            for name, pipeline, size in (("single", 1, 100), ("pipelined", 16, 100), ("large-values", 4, 20000)):
                if args.only in name:
                    cases.run(f"redis-benchmark {name} IPv{family}", benchmark_case, bed, service, args, family,
                              pipeline, size)
            if args.only in "values":
                cases.run(f"redis values IPv{family}", verify_case, bed, service, args, family)
            if args.only in "bgsave":
                cases.run(f"redis bgsave under load IPv{family}", save_case, bed, service, args, family)
        cases.run("redis-server ends well", lambda: testbed.expect(server.stop(timeout_s=10) == 0, server.tail()))
        cases.run("service ends well", service.stop)
    return cases.summary()


if __name__ == "__main__":
    sys.exit(testbed.main(main))
