"""Numbers from the kernel: TCP counters of a namespace, CPU time of a process and of a core; percentiles."""

import math
import os
import time

# What a stranger's kernel would count if a move had hurt it. Names as nstat prints them.
PEER_COUNTERS = (
    "TcpRetransSegs", "TcpExtTCPTimeouts", "TcpOutRsts", "TcpEstabResets", "TcpInErrs", "TcpInCsumErrors",
    "TcpExtTCPLostRetransmit", "TcpExtTCPSpuriousRTOs", "TcpExtTCPDSACKRecv", "TcpExtTCPDSACKOldSent",
    "TcpExtTCPLossProbes", "TcpExtTCPFastRetrans", "TcpExtTCPSlowStartRetrans", "TcpExtTCPAbortOnData",
    "TcpExtTCPAbortOnClose", "TcpExtTCPOFOQueue", "TcpExtPAWSEstab", "TcpExtTCPACKSkippedSeq",
    "TcpExtTCPChallengeACK",
)


def parse_netstat(text):
    """/proc/net/snmp and /proc/net/netstat: pairs of lines, names then values."""
    found = {}
    lines = text.splitlines()
    for names, values in zip(lines[::2], lines[1::2]):
        prefix, _, rest = names.partition(":")
        for name, value in zip(rest.split(), values.partition(":")[2].split()):
            found[prefix + name] = int(value)
    return found


class TcpCounters:
    """Deltas of a namespace's counters since the object was made (or since mark())."""

    def __init__(self, namespace):
        self._namespace = namespace
        self._start = {}
        self.mark()

    def _read(self):
        return parse_netstat(self._namespace.check(["cat", "/proc/net/snmp", "/proc/net/netstat"]))

    def mark(self):
        self._start = self._read()

    def all(self):
        now = self._read()
        return {name: value - self._start.get(name, 0) for name, value in now.items()}

    def delta(self, names=PEER_COUNTERS):
        now = self.all()
        return {name: now.get(name, 0) for name in names}


def cpu_us_of_threads(pid):
    """{thread name/id: microseconds of CPU} of every living thread, to the nanosecond (schedstat), user and system."""
    times = {}
    try:
        threads = os.listdir(f"/proc/{pid}/task")
    except OSError:
        return times
    for thread in threads:
        base = f"/proc/{pid}/task/{thread}"
        try:
            with open(f"{base}/schedstat", encoding="ascii") as file:
                nanoseconds = int(file.read().split()[0])
            with open(f"{base}/comm", encoding="utf-8", errors="replace") as file:
                times[f"{file.read().strip()}/{thread}"] = nanoseconds / 1000
        except (OSError, IndexError, ValueError):
            continue  # it ended meanwhile
    return times


def cpu_us(pid):
    """CPU microseconds of a process: all its living threads."""
    return sum(cpu_us_of_threads(pid).values())


def core_busy_us(core):
    """A clock of the microseconds in which a core was not idle (only differences mean something).

    Linux measures idle time (tick_nohz_irq_enter() ends it for interrupts too), but samples all else at ticks, which do
    not come while a core is idle: softirqs on a core with idle time hardly show in the other fields of /proc/stat.
    """
    tick_us = 1_000_000 / os.sysconf("SC_CLK_TCK")
    with open("/proc/stat", encoding="ascii") as file:
        for line in file:
            fields = line.split()
            if fields[0] == f"cpu{core}":
                idle, iowait = int(fields[4]), int(fields[5])
                return time.monotonic() * 1_000_000 - (idle + iowait) * tick_us
    raise ValueError(f"no core {core}")


def percentile(values, q):
    """Nearest-rank percentile (q in 0..100); 0 of nothing."""
    if not values:
        return 0
    ordered = sorted(values)
    rank = max(1, math.ceil(q * len(ordered) / 100))
    return ordered[rank - 1]


def median(values):
    ordered = sorted(values)
    if not ordered:
        return 0
    middle = len(ordered) // 2
    return ordered[middle] if len(ordered) % 2 else (ordered[middle - 1] + ordered[middle]) / 2
