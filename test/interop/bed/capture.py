"""What the peer's wire says: a tcpdump capture on one side of the link and its analysis."""

import os
import socket
import struct
import time
from dataclasses import dataclass, field

# RSTs and FINs alone: cheap enough to run under any load. The IPv6 form needs the offset of the TCP flags in full.
END_FILTER = "(tcp[tcpflags] & (tcp-rst|tcp-fin) != 0) or (ip6[6] = 6 and ip6[53] & 5 != 0)"
_MARKER = b"twinstack-bed-marker-%d"
_MARKER_PORT = 9  # discard

FIN, SYN, RST, PSH, ACK = 1, 2, 4, 8, 16


class Capture:
    """tcpdump on a namespace's interface. start() returns when packets are really being caught; stop() when all
    packets up to then are in the file. Its size is bounded: a ring of two files."""

    def __init__(self, namespace, scratch, expression="tcp", limit_mb=600):
        self._namespace = namespace
        self._expression = expression
        self._path = os.path.join(scratch, f"capture-{time.monotonic_ns()}.pcap")
        self._limit_mb = limit_mb
        self._child = None
        self.dropped = 0

    def start(self):
        marker = f"(udp port {_MARKER_PORT})"
        expression = f"({self._expression}) or {marker}" if self._expression else ""
        half = max(1, self._limit_mb // 2)
        # Few packets: each is written at once, so that stop() need not wait for the kernel's buffer to be turned over.
        prompt = ["--immediate-mode"] if self._expression == END_FILTER else []
        self._child = self._namespace.spawn(
            ["tcpdump", *prompt, "-i", self._namespace.interface, "-s", "128", "-U", "-n", "-B", "32768", "-Z", "root",
             "-C", str(half), "-W", "2", "-w", self._path, expression], name="tcpdump")
        self._child.wait_ready(r"listening on", stream="err")
        return self

    def files(self):
        """Oldest first. tcpdump appends the number of the ring's file."""
        found = [p for p in (self._path + suffix for suffix in ("0", "1", "")) if os.path.exists(p)]
        return sorted(found, key=os.path.getmtime)

    def _send_marker(self, text):
        # To the link's other end by the interface that is watched; what comes back (ICMP) is not TCP.
        other = self._namespace.address(4)[:-1] + ("2" if self._namespace.address(4).endswith("1") else "1")
        script = "import socket,sys; socket.socket(socket.AF_INET, socket.SOCK_DGRAM)" \
                 ".sendto(sys.argv[1].encode(), (sys.argv[2], int(sys.argv[3])))"
        self._namespace.run(["python3", "-c", script, text, other, _MARKER_PORT])

    def _marker_written(self, text):
        needle = text.encode()
        for path in self.files()[-1:]:
            with open(path, "rb") as file:
                file.seek(max(0, os.path.getsize(path) - (1 << 20)))
                if needle in file.read():
                    return True
        return False

    def stop(self, timeout_s=5):
        """Ends the capture after everything that was on the wire before is in the file. Returns self."""
        marker = (_MARKER % time.monotonic_ns()).decode()
        self._send_marker(marker)
        deadline = time.monotonic() + timeout_s
        while not self._marker_written(marker) and time.monotonic() < deadline and self._child.running():
            time.sleep(0.05)  # tcpdump says nothing; its file is polled
        self._child.stop(number=2)
        match = self._child.err.wait_for(r"^(\d+) packets? dropped by kernel", 1)
        self.dropped = int(match.group(1)) if match else 0
        return self

    def analyse(self, max_packets=20_000_000):
        analysis = Analysis(dropped=self.dropped)
        for path in self.files():
            analysis.add_file(path, max_packets)
        return analysis

    def remove(self):
        for path in self.files():
            os.unlink(path)


@dataclass
class End:
    """A segment with RST, or with FIN."""

    time_s: float
    source: str
    sport: int
    destination: str
    dport: int
    reset: bool
    with_ack: bool  # RST+ACK: a side that gave up; RST alone: an answer to a packet for a connection it does not have

    def connection(self):
        """The same for both directions."""
        return tuple(sorted(((self.source, self.sport), (self.destination, self.dport))))

    def __str__(self):
        kind = ("RST" if self.reset else "FIN") + ("+ACK" if self.with_ack else "")
        return f"{kind} {self.source}.{self.sport} > {self.destination}.{self.dport} at {self.time_s:.6f}"


@dataclass
class Analysis:
    """Sums over a capture. Retransmissions: data at or below the highest sequence number that its direction had sent,
    by source address; zero-length probes are none."""

    packets: int = 0
    bytes_by_source: dict = field(default_factory=dict)
    retransmitted_by_source: dict = field(default_factory=dict)  # segments
    resets: list = field(default_factory=list)
    ends: list = field(default_factory=list)  # FINs
    dropped: int = 0
    _highest: dict = field(default_factory=dict)

    def retransmissions(self):
        return sum(self.retransmitted_by_source.values())

    def add_file(self, path, max_packets):
        with open(path, "rb") as file:
            head = file.read(24)
            if len(head) < 24:
                return
            magic, = struct.unpack("<I", head[:4])
            if magic not in (0xa1b2c3d4, 0xa1b23c4d):
                raise ValueError(f"{path}: not a little-endian pcap file")
            tick = 1e-9 if magic == 0xa1b23c4d else 1e-6
            self._walk(file, tick, max_packets)

    def _walk(self, file, tick, max_packets):
        record = struct.Struct("<IIII")
        rest = b""
        while self.packets < max_packets:
            block = file.read(1 << 22)
            if not block:
                return
            data = rest + block
            at, end = 0, len(data)
            while end - at >= 16:
                seconds, fraction, kept, _ = record.unpack_from(data, at)
                if end - at - 16 < kept:
                    break
                self._packet(data, at + 16, kept, seconds, fraction * tick)
                at += 16 + kept
            rest = data[at:]

    def _packet(self, data, at, kept, seconds, fraction):
        if kept < 54:
            return
        kind = data[at + 12] << 8 | data[at + 13]
        ip = at + 14
        if kind == 0x0800:
            if data[ip + 9] != 6:
                return
            tcp = ip + (data[ip] & 15) * 4
            length = (data[ip + 2] << 8 | data[ip + 3]) - (tcp - ip)
            source, destination = data[ip + 12:ip + 16], data[ip + 16:ip + 20]
        elif kind == 0x86dd and kept >= 74:
            if data[ip + 6] != 6:
                return
            tcp = ip + 40
            length = data[ip + 4] << 8 | data[ip + 5]
            source, destination = data[ip + 8:ip + 24], data[ip + 24:ip + 40]
        else:
            return
        self.packets += 1
        ports = data[tcp:tcp + 4]
        flags = data[tcp + 13]
        payload = length - (data[tcp + 12] >> 4) * 4
        if flags & (RST | FIN):
            self._end(source, destination, ports, flags, seconds + fraction)
        if flags & SYN:
            self._highest.pop((source, destination, ports), None)
        elif payload > 0:
            self._data(source, (source, destination, ports), int.from_bytes(data[tcp + 4:tcp + 8], "big"), payload)

    def _end(self, source, destination, ports, flags, when):
        sport, dport = struct.unpack("!HH", ports)
        end = End(when, _address(source), sport, _address(destination), dport, bool(flags & RST), bool(flags & ACK))
        (self.resets if end.reset else self.ends).append(end)

    def _data(self, source, key, sequence, payload):
        name = _address_cached(source)
        self.bytes_by_source[name] = self.bytes_by_source.get(name, 0) + payload
        end = (sequence + payload) & 0xffffffff
        highest = self._highest.get(key)
        if highest is None or 0 < (end - highest) & 0xffffffff < 0x80000000:
            self._highest[key] = end
        # A segment that starts below what was sent before repeats something, also when it reaches further.
        if highest is not None and 0 < (highest - sequence) & 0xffffffff < 0x80000000:
            self.retransmitted_by_source[name] = self.retransmitted_by_source.get(name, 0) + 1


def _address(raw):
    return socket.inet_ntop(socket.AF_INET if len(raw) == 4 else socket.AF_INET6, raw)


_names = {}


def _address_cached(raw):
    name = _names.get(raw)
    if name is None:
        name = _names[raw] = _address(raw)
    return name
