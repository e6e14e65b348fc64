"""The comparison of the two stacks: the same request/response server, client, link and cores, in alternating rounds.

Everything of the server's side runs on one core: server program, service, and the packets that come in (RPS puts them
there, as a NIC's interrupt would; on veth they would otherwise be processed on the client's core, for both stacks).
The client's side has another core. CPU per request is given twice: of the processes (server + service), and of the
whole core, since what softirqs take is charged to no process or to the one that they interrupt.
"""

import os
import time
from dataclasses import dataclass

from bed import counters, service as service_module
from bed.report import expect, table

KERNEL, ENGINE = "kernel", "engine"


@dataclass
class Round:
    """One measured interval."""

    stack: str
    requests: int
    seconds: float
    p50_us: float
    p99_us: float
    p999_us: float
    server_us: float   # CPU of the server program per request
    service_us: float  # CPU of the service per request
    core_us: float     # busy time of the server's core per request

    @property
    def requests_per_second(self):
        return self.requests / self.seconds

    @property
    def process_us(self):
        return self.server_us + self.service_us


@dataclass
class Setup:
    """What is compared."""

    connections: int = 64
    size_bytes: int = 64
    seconds: float = 3.0
    warmup_s: float = 1.5
    family: int = 4
    server_core: int = 0
    client_core: int = 1
    service_args: tuple = ()


def cores():
    """(server's core, client's core) of this machine."""
    usable = sorted(os.sched_getaffinity(0))
    return usable[0], usable[1 if len(usable) > 1 else 0]


def _sample(setup, server, service):
    return (counters.cpu_us(server.pid), counters.cpu_us(service.pid) if service.pid else 0.0,
            counters.core_busy_us(setup.server_core))


def _offload_all(service, setup):
    """During the warm-up: the server may not have accepted all of them yet, and a busy moment refuses a move."""
    deadline = time.monotonic() + setup.warmup_s
    refused = []
    on_engine = 0
    while on_engine < setup.connections and time.monotonic() < deadline:
        refused = service.move("offload").get("refused", [])
        on_engine = service.count_on("engine")
    expect(on_engine == setup.connections,
           f"{on_engine} of {setup.connections} connections are in the engine after {setup.warmup_s:g} s; "
           f"refused: {refused[0]['reason'] if refused else 'none'}")


def measure(bed, stack, setup):
    """One round: starts service and server, loads, samples the clocks around the measured time, stops both."""
    service = (bed.start_service(cpus=setup.server_core, extra_args=setup.service_args)
               if stack == ENGINE else bed.no_service())
    server = bed.srv.spawn(
        service.run_under([service_module.program("rr_server"), "-b", "::", "-s", str(setup.size_bytes)]),
        name="rr_server", cpus=setup.server_core)
    port = server.wait_ready().group(1)
    client = bed.cli.spawn(
        [service_module.program("rr_client"), "-H", bed.srv.address(setup.family), "-p", port, "-c", setup.connections,
         "-s", setup.size_bytes, "-d", setup.seconds, "-w", setup.warmup_s], name="rr_client", cpus=setup.client_core)
    client.wait_ready(r"^connected")
    if service.active:
        _offload_all(service, setup)
    client.wait_ready(r"^measuring", timeout_s=setup.warmup_s + 10)
    before = _sample(setup, server, service)
    client.wait_ready(r"^measured", timeout_s=setup.seconds + 10)
    after = _sample(setup, server, service)
    code = client.finish(30)
    report = client.out.last_json()
    expect(code == 0 and report, f"rr_client: exit code {code}: {client.tail()}")
    server.stop()
    service.stop()
    spent = [(b - a) / report["requests"] for a, b in zip(before, after)]
    return Round(stack, report["requests"], report["seconds"], report["p50_us"], report["p99_us"], report["p999_us"],
                 *spent)


def run(bed, stacks, rounds, setup, progress=None):
    """All rounds, the stacks taking turns (and the first one changing, so that none always follows the other)."""
    bed.srv.receive_on_cpu(setup.server_core)
    bed.cli.receive_on_cpu(setup.client_core)
    mine = os.sched_getaffinity(0)
    os.sched_setaffinity(0, {setup.client_core})  # this script measures; it must not disturb the server's core
    results = []
    try:
        for number in range(rounds):
            for stack in stacks if number % 2 == 0 else reversed(stacks):
                if progress:
                    done = ", ".join(f"{r.stack} {r.requests_per_second / 1000:.0f}k/s" for r in results[-4:])
                    progress.update(f"comparison: round {number + 1} of {rounds}, {stack} ... {done}", force=True)
                results.append(measure(bed, stack, setup))
    finally:
        os.sched_setaffinity(0, mine)
    return results


def summary(results):
    """{stack: {figure: median over the rounds}}."""
    figures = ("requests_per_second", "p50_us", "p99_us", "p999_us", "server_us", "service_us", "process_us", "core_us")
    found = {}
    for stack in dict.fromkeys(r.stack for r in results):
        mine = [r for r in results if r.stack == stack]
        found[stack] = {name: counters.median([getattr(r, name) for r in mine]) for name in figures}
        found[stack]["rounds"] = len(mine)
        found[stack]["lowest"] = min(r.requests_per_second for r in mine)
        found[stack]["highest"] = max(r.requests_per_second for r in mine)
    return found


def result_table(medians):
    """Text: one column per stack, and their ratio when there are two."""
    rows = [
        ("requests per second", "requests_per_second", "{:.0f}"),
        ("  lowest .. highest round", None, None),
        ("latency p50, us", "p50_us", "{:.0f}"),
        ("latency p99, us", "p99_us", "{:.0f}"),
        ("latency p99.9, us", "p999_us", "{:.0f}"),
        ("CPU us per request: server program", "server_us", "{:.2f}"),
        ("CPU us per request: service", "service_us", "{:.2f}"),
        ("CPU us per request: both processes", "process_us", "{:.2f}"),
        ("CPU us per request: whole server core", "core_us", "{:.2f}"),
    ]
    stacks = list(medians)
    both = {KERNEL, ENGINE} <= set(stacks)
    lines = []
    for label, name, form in rows:
        if name is None:
            lines.append([label] + [f"{medians[s]['lowest']:.0f} .. {medians[s]['highest']:.0f}" for s in stacks])
            continue
        line = [label] + [form.format(medians[s][name]) for s in stacks]
        if both and medians[KERNEL][name] > 0:
            line.append(f"x {medians[ENGINE][name] / medians[KERNEL][name]:.2f}")
        lines.append(line)
    line = ["requests per CPU-second of the core"] + [
        f"{1e6 / medians[s]['core_us']:.0f}" if medians[s]["core_us"] else "-" for s in stacks]
    if both and medians[ENGINE]["core_us"] > 0:
        line.append(f"x {medians[KERNEL]['core_us'] / medians[ENGINE]['core_us']:.2f}")
    lines.append(line)
    return table(lines, headings=["median of the rounds"] + stacks + (["engine / kernel"] if both else []))
