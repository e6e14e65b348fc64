#!/usr/bin/env python3
"""Writes the seed corpora of the fuzz targets: fuzz/make_seeds.py. Deterministic; the seeds are in the repository."""
import json
import pathlib
import random
import struct

ROOT = pathlib.Path(__file__).parent / "corpus"


def checksum(data):
    if len(data) % 2:
        data += b"\0"
    total = sum(struct.unpack(f"!{len(data) // 2}H", data))
    while total >> 16:
        total = (total & 0xFFFF) + (total >> 16)
    return ~total & 0xFFFF


def tcp(source, target, pseudo_type, payload, options=b"", flags=0x10):
    header = struct.pack("!HHIIBBHHH", 51000, 80, 1000, 2000, (20 + len(options)) // 4 << 4, flags, 512, 0, 0) + options
    length = len(header) + len(payload)
    pseudo = source + target + (struct.pack("!BBH", 0, 6, length) if pseudo_type == 4 else struct.pack("!IHBB", length, 0, 0, 6))
    value = checksum(pseudo + header + payload)
    return header[:16] + struct.pack("!H", value) + header[18:] + payload


def frame4(payload, **more):
    source, target = bytes([10, 0, 0, 2]), bytes([10, 0, 0, 1])
    segment = tcp(source, target, 4, payload, **more)
    ip = struct.pack("!BBHHHBBH", 0x45, 0, 20 + len(segment), 0, 0x4000, 64, 6, 0) + source + target
    ip = ip[:10] + struct.pack("!H", checksum(ip)) + ip[12:]
    return bytes(12) + b"\x08\x00" + ip + segment


def frame6(payload, **more):
    source, target = bytes([0xFD] + [0] * 14 + [2]), bytes([0xFD] + [0] * 14 + [1])
    segment = tcp(source, target, 6, payload, **more)
    return bytes(12) + b"\x86\xdd" + struct.pack("!IHBB", 6 << 28, len(segment), 6, 64) + source + target + segment


def write(target, name, data):
    folder = ROOT / target
    folder.mkdir(parents=True, exist_ok=True)
    (folder / name).write_bytes(data)


TIMESTAMPS = bytes([1, 1, 8, 10]) + struct.pack("!II", 7, 8)
SACK = bytes([1, 1, 5, 18]) + struct.pack("!IIII", 3000, 4000, 5000, 6000)
SYN = bytes([2, 4, 5, 0xB4, 4, 2, 8, 10]) + struct.pack("!II", 7, 0) + bytes([1, 3, 3, 7])

for how in (0, 3):
    write("frame", f"ipv4-{how}", bytes([how]) + frame4(b"x" * 100, options=TIMESTAMPS))
    write("frame", f"ipv6-{how}", bytes([how]) + frame6(b"y" * 700, options=TIMESTAMPS))
write("frame", "vlan", bytes([0]) + frame4(b"z")[:12] + b"\x81\x00\x00\x05" + frame4(b"z")[12:])
write("frame", "fin", bytes([1]) + frame4(b"", flags=0x11))
write("frame", "super", bytes([1]) + frame4(bytes(3000), options=TIMESTAMPS))
write("options", "timestamps", TIMESTAMPS)
write("options", "sack", SACK)
write("options", "both", TIMESTAMPS + SACK)
write("options", "syn", SYN)
write("options", "bad-length", bytes([8, 0]))
for target in ("connection", "pair", "stack", "lane", "sessions"):
    for seed in range(8):
        rng = random.Random(seed)
        write(target, f"random-{seed}", bytes(rng.randrange(256) for _ in range(300 + 200 * seed)))
# Type, size and what follows of src/ipc/messages.h.
for name, kind, size in (("hello", 1, 48), ("register", 2, 24), ("close", 3, 16), ("upload", 4, 56), ("query", 5, 24)):
    write("messages", name, struct.pack("<II", kind, size) + bytes(size - 8))
for name, line in (("ls", {"cmd": "ls", "filter": "dport 80"}), ("offload", {"cmd": "offload", "filter": "all"}),
                   ("stats", {"cmd": "stats"}), ("churn", {"cmd": "churn", "interval_ms": 100, "duration_ms": 5000})):
    write("control", name, b"\x3f" + json.dumps(line).encode() + b"\n")
