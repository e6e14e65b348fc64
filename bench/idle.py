#!/usr/bin/env python3
"""A thousand idle connections in the engine: the CPU that the service takes over 20 seconds."""

import os
import sys
import time

sys.path.insert(0, os.path.join(os.path.dirname(os.path.realpath(__file__)), "..", "test", "interop"))
import testbed  # noqa: E402

# Connects, says so, and keeps the connections until it is told to end.
HOLDER = """
import resource, signal, socket, sys
hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
kept = [socket.create_connection((sys.argv[1], int(sys.argv[2]))) for _ in range(int(sys.argv[3]))]
print("ready", flush=True)
signal.sigwait({signal.SIGTERM})
"""


def main():
    parser = testbed.arguments(__doc__, duration=20.0)
    parser.add_argument("--connections", type=int, default=1000)
    args = parser.parse_args()
    testbed.exit_if_unavailable(args.no_service)
    with testbed.Bed() as bed:
        service = bed.service_for(args)
        server = bed.srv.spawn(service.run_under([testbed.program("rr_server"), "-b", "::"]))
        port = server.wait_ready().group(1)
        holder = bed.cli.spawn(["python3", "-c", HOLDER, bed.srv.address(4), port, args.connections], name="holder")
        holder.wait_ready(timeout_s=60)
        # Connected does not mean accepted yet.
        deadline = time.monotonic() + 10
        while service.active and len(service.ls()) < args.connections and time.monotonic() < deadline:
            time.sleep(0.1)
        service.move("offload")
        in_engine = service.count_on("engine")
        watched = {"server": server.pid} | ({"service": service.pid} if service.pid else {})
        time.sleep(1)  # what the moves left to do (parking) is not idleness
        before = {name: testbed.cpu_us(pid) for name, pid in watched.items()}
        threads_before = testbed.cpu_us_of_threads(service.pid) if service.pid else {}
        time.sleep(args.duration)
        rows = [(f"{name}, CPU over {args.duration:g} s", f"{(testbed.cpu_us(pid) - before[name]) / 1000:.2f} ms",
                 f"{(testbed.cpu_us(pid) - before[name]) / args.duration / 1e4:.4f} %")
                for name, pid in watched.items()]
        for thread, spent in (testbed.cpu_us_of_threads(service.pid) if service.pid else {}).items():
            rows.append((f"  thread {thread}", f"{(spent - threads_before.get(thread, 0)) / 1000:.2f} ms", ""))
        still = service.count_on("engine")
        holder.stop()
        service.stop()
    print(f"{args.connections} idle connections, {in_engine} in the engine ({still} at the end)")
    print(testbed.table(rows, headings=["process", "time", "of a core"]))
    return 0 if args.no_service or in_engine == still == args.connections else 1


if __name__ == "__main__":
    sys.exit(testbed.main(main))
