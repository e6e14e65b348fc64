"""A small client of Redis' protocol (RESP 2) and a program that checks values with it.

As a program (run in the client's namespace): python3 resp.py HOST PORT SECONDS SEED
writes values, reads them back, compares, with pipelining; prints one JSON line. Exit code 1 if a value was wrong.
"""

import json
import random
import socket
import sys
import time


class RespError(RuntimeError):
    """The server answered with an error, or not as the protocol says."""


class Client:
    """One blocking connection."""

    def __init__(self, host, port, timeout_s=30):
        self._socket = socket.create_connection((host, port), timeout=timeout_s)
        self._file = self._socket.makefile("rb", buffering=1 << 16)

    def close(self):
        self._file.close()
        self._socket.close()

    @staticmethod
    def encode(words):
        parts = [b"*%d\r\n" % len(words)]
        for word in words:
            data = word if isinstance(word, bytes) else str(word).encode()
            parts.append(b"$%d\r\n%s\r\n" % (len(data), data))
        return b"".join(parts)

    def pipeline(self, commands):
        """Sends all commands at once; returns all answers."""
        self._socket.sendall(b"".join(self.encode(command) for command in commands))
        return [self._answer() for _ in commands]

    def call(self, *words):
        return self.pipeline([words])[0]

    def _line(self):
        line = self._file.readline()
        if not line.endswith(b"\r\n"):
            raise RespError("the connection ended")
        return line[:-2]

    def _answer(self):
        line = self._line()
        kind, rest = line[:1], line[1:]
        if kind == b"+":
            return rest
        if kind == b"-":
            raise RespError(rest.decode(errors="replace"))
        if kind == b":":
            return int(rest)
        if kind == b"$":
            length = int(rest)
            if length < 0:
                return None
            data = self._file.read(length + 2)
            if len(data) != length + 2 or not data.endswith(b"\r\n"):
                raise RespError("a bulk string is cut short")
            return data[:-2]
        if kind == b"*":
            return [self._answer() for _ in range(int(rest))]
        raise RespError(f"not RESP: {line[:40]!r}")


def verify(host, port, seconds, seed):
    """SET and GET of random values of many sizes, pipelined; every value is compared."""
    rng = random.Random(seed)
    client = Client(host, port)
    totals = {"rounds": 0, "values": 0, "bytes": 0, "wrong": 0}
    deadline = time.monotonic() + seconds
    expected = {}
    while time.monotonic() < deadline:
        batch = {f"ts:{seed}:{rng.randrange(500)}": rng.randbytes(rng.choice((1, 40, 700, 5000, 70000)))
                 for _ in range(rng.choice((1, 4, 30)))}
        answers = client.pipeline([("SET", key, value) for key, value in batch.items()])
        totals["wrong"] += sum(answer != b"OK" for answer in answers)
        expected.update(batch)
        asked = rng.sample(list(expected), min(len(expected), rng.choice((1, 5, 40))))
        for key, value in zip(asked, client.pipeline([("GET", key) for key in asked])):
            totals["wrong"] += value != expected[key]
            totals["values"] += 1
            totals["bytes"] += len(expected[key])
        totals["bytes"] += sum(map(len, batch.values()))
        totals["rounds"] += 1
    client.close()
    return totals


def main():
    host, port, seconds, seed = sys.argv[1], int(sys.argv[2]), float(sys.argv[3]), int(sys.argv[4])
    try:
        totals = verify(host, port, seconds, seed)
    except (OSError, RespError) as failure:
        print(json.dumps({"error": str(failure)}))
        return 1
    print(json.dumps(totals))
    return 1 if totals["wrong"] or not totals["values"] else 0


if __name__ == "__main__":
    sys.exit(main())
