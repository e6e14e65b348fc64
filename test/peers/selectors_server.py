#!/usr/bin/env python3
"""A TCP server on Python's selectors module, unmodified and ordinary, and a client that checks it.

  selectors_server.py server [--bind ADDR] [--port N] [--selector epoll|poll|select] [--upper]   prints `ready PORT`
  selectors_server.py client --host ADDR --port N [--connections C] [--bytes B] [--seed S] [--upper]

The server echoes what it gets (in upper case with --upper). The client sends a seeded stream on every connection, with
writes of random size, and compares the SHA-256 of what comes back with that of what it should be; prints one JSON line.
"""

import argparse
import hashlib
import json
import random
import selectors
import signal
import socket
import sys

BACKLOG_LIMIT = 1 << 20  # bytes that the server holds for one connection before it stops reading from it
SELECTORS = {"epoll": selectors.EpollSelector, "poll": selectors.PollSelector, "select": selectors.SelectSelector}


class Echo:
    """One connection of the server."""

    def __init__(self, server, sock):
        self.server = server
        self.sock = sock
        self.pending = bytearray()
        self.ended = False

    def events(self):
        wanted = 0
        if not self.ended and len(self.pending) < BACKLOG_LIMIT:
            wanted |= selectors.EVENT_READ
        if self.pending:
            wanted |= selectors.EVENT_WRITE
        return wanted

    def serve(self, mask):
        """False when the connection is over."""
        try:
            if mask & selectors.EVENT_READ:
                self.read()
            if self.pending:
                sent = self.sock.send(self.pending)
                del self.pending[:sent]
        except BlockingIOError:
            pass
        return bool(self.pending) or not self.ended

    def read(self):
        data = self.sock.recv(65536)
        if data:
            self.pending += data.upper() if self.server.upper else data
            self.server.received += len(data)
        else:
            self.ended = True


class Server:
    """The event loop."""

    def __init__(self, args):
        self.upper = args.upper
        self.received = 0
        self.connections = 0
        self.errors = 0
        self.running = True
        self.selector = SELECTORS[args.selector]()
        family = socket.AF_INET6 if ":" in args.bind else socket.AF_INET
        self.listener = socket.create_server((args.bind, args.port), family=family, backlog=512,
                                             dualstack_ipv6=family == socket.AF_INET6)
        self.listener.setblocking(False)
        self.selector.register(self.listener, selectors.EVENT_READ, None)
        # Python's own way to wake a selector by a signal.
        wake, self.woken = socket.socketpair()
        wake.setblocking(False)
        signal.set_wakeup_fd(wake.fileno())
        self.wake = wake
        self.selector.register(self.woken, selectors.EVENT_READ, None)

    def run(self):
        print(f"ready {self.listener.getsockname()[1]}", flush=True)
        while self.running:
            for key, mask in self.selector.select():
                if key.fileobj is self.listener:
                    self.accept()
                elif key.fileobj is not self.woken:
                    self.serve(key, mask)

    def accept(self):
        try:
            sock, _ = self.listener.accept()
        except OSError:
            return
        sock.setblocking(False)
        self.connections += 1
        self.selector.register(sock, selectors.EVENT_READ, Echo(self, sock))

    def serve(self, key, mask):
        echo = key.data
        try:
            alive = echo.serve(mask)
        except OSError as failure:
            self.errors += 1
            print(f"selectors_server: {failure}", file=sys.stderr)
            alive = False
        if not alive:
            self.selector.unregister(echo.sock)
            echo.sock.close()
        elif echo.events() != key.events:
            self.selector.modify(echo.sock, echo.events(), echo)

    def stop(self, *_args):
        self.running = False


class Flow:
    """One connection of the client."""

    def __init__(self, args, index):
        self.rng = random.Random(args.seed * 100_003 + index)
        # A large block, sent again and again in pieces: made once, so that Python is not what is measured.
        self.block = self.rng.randbytes(1 << 17).replace(b"\xdf", b"s").lower()
        self.total = args.bytes
        self.sent = 0
        self.received = 0
        self.expected = hashlib.sha256()
        self.got = hashlib.sha256()
        self.upper = args.upper
        self.sock = socket.create_connection((args.host, args.port), timeout=30)
        self.sock.setblocking(False)
        self.closed_half = False

    def events(self):
        return selectors.EVENT_READ | (0 if self.closed_half else selectors.EVENT_WRITE)

    def write(self):
        offset = self.sent % len(self.block)
        size = min(self.rng.choice((1, 10, 700, 9000, 120_000)), self.total - self.sent, len(self.block) - offset)
        if size > 0:
            sent = self.sock.send(self.block[offset:offset + size])
            data = self.block[offset:offset + sent]
            self.expected.update(data.upper() if self.upper else data)
            self.sent += sent
        if self.sent == self.total:
            self.sock.shutdown(socket.SHUT_WR)
            self.closed_half = True

    def read(self):
        """False at the end of the stream."""
        data = self.sock.recv(65536)
        self.got.update(data)
        self.received += len(data)
        return bool(data)

    def right(self):
        return self.received == self.total and self.got.digest() == self.expected.digest()


def run_flows(flows, stall_s):
    """Drives all flows to their ends; returns the failures."""
    selector = selectors.DefaultSelector()
    failures = []
    for flow in flows:
        selector.register(flow.sock, flow.events(), flow)
    while selector.get_map():
        ready = selector.select(stall_s)
        if not ready:
            failures.append(f"nothing moved for {stall_s} s on {len(selector.get_map())} connections")
            break
        for key, mask in ready:
            flow = key.data
            alive = True
            try:
                if mask & selectors.EVENT_WRITE and not flow.closed_half:
                    flow.write()
                if mask & selectors.EVENT_READ:
                    alive = flow.read()
            except BlockingIOError:
                pass
            except OSError as failure:
                failures.append(str(failure))
                alive = False
            if not alive:
                selector.unregister(flow.sock)
                flow.sock.close()
            elif flow.events() != key.events:
                selector.modify(flow.sock, flow.events(), flow)
    return failures


def client(args):
    flows = [Flow(args, index) for index in range(args.connections)]
    failures = run_flows(flows, args.stall_limit)
    wrong = sum(not flow.right() for flow in flows)
    print(json.dumps({"connections": len(flows), "bytes": sum(flow.received for flow in flows), "wrong": wrong,
                      "failures": failures[:5]}))
    return 1 if wrong or failures else 0


def server(args):
    loop = Server(args)
    signal.signal(signal.SIGTERM, loop.stop)
    signal.signal(signal.SIGINT, loop.stop)
    loop.run()
    print(json.dumps({"connections": loop.connections, "bytes_received": loop.received, "errors": loop.errors}))
    return 1 if loop.errors else 0


def main():
    parser = argparse.ArgumentParser(description="TCP echo server on Python's selectors, and its client")
    commands = parser.add_subparsers(dest="command", required=True)
    one = commands.add_parser("server")
    one.add_argument("--bind", default="::")
    one.add_argument("--port", type=int, default=0)
    one.add_argument("--selector", choices=sorted(SELECTORS), default="epoll")
    one.add_argument("--upper", action="store_true", help="answer in upper case")
    two = commands.add_parser("client")
    two.add_argument("--host", required=True)
    two.add_argument("--port", type=int, required=True)
    two.add_argument("--connections", type=int, default=8)
    two.add_argument("--bytes", type=int, default=1_000_000, help="per connection")
    two.add_argument("--seed", type=int, default=1)
    two.add_argument("--upper", action="store_true", help="expect upper case")
    two.add_argument("--stall-limit", type=float, default=30, help="seconds without progress that count as a failure")
    args = parser.parse_args()
    return server(args) if args.command == "server" else client(args)


if __name__ == "__main__":
    sys.exit(main())
