"""Pieces of load that more than one script uses: servers under the service, strangers that check what they get."""

import contextlib
import json
import math
import sys

from bed import service as service_module
from bed.netns import BedError
from bed.report import Failed, expect


def start_server(bed, service, argv, cpus=None, user=None, name=None):
    """Starts a peer program that prints `ready PORT`; returns (child, port)."""
    child = bed.srv.spawn(service.run_under(argv), name=name or argv[0].rsplit("/", 1)[-1], cpus=cpus, user=user)
    return child, int(child.wait_ready().group(1))


class Moves:
    """Forced moves around a case: `with Moves(service, interval, seconds) as moves: ...; moves.count` afterwards.

    Fails the case if the mover failed, or if the service was active and nothing was moved.
    """

    def __init__(self, service, interval_ms, duration_s):
        self._service = service
        self._interval_ms = interval_ms
        self._duration_s = duration_s
        self._before = None
        self.stats = None

    def __enter__(self):
        self._before = self._service.stats()
        self._service.churn(self._interval_ms, math.ceil(self._duration_s))
        return self

    def __exit__(self, kind, _value, _trace):
        if kind is not None:
            with contextlib.suppress(BedError):  # the case has failed already; the service may be gone
                self._service.churn(self._interval_ms, 0)
                sys.stderr.write(self._service.account(self._before) + "\n")
            return
        self._service.churn(self._interval_ms, 0)
        self.stats = self._service.stats(self._before)
        if self._service.active:
            expect(self.stats.counter("broken_streams") == 0, "the service counted a broken stream")
            expect(self.count > 0, "no connection was moved")

    @property
    def count(self):
        return self.stats.total_moves() if self.stats else 0

    def text(self):
        return f"{self.count} moves" if self._service.active else "kernel only"


class StreamPair:
    """One run of stream_peer between the namespaces; check() compares both sides' digests."""

    def __init__(self, bed, service, family, server_args=(), client_args=(), user=None):
        self._program = service_module.program("stream_peer")
        self._bed = bed
        self._family = family
        self._client_args = [str(arg) for arg in client_args]
        # The server ends by itself: it may still read what the client has long got rid of.
        self.server, self.port = start_server(
            bed, service, [self._program, "server", "-b", "::", "--exit-after", str(self._connections()), *server_args],
            user=user)
        self.client = None

    def _connections(self):
        def option(name):
            return int(self._client_args[self._client_args.index(name) + 1]) if name in self._client_args else 1
        return max(option("--total"), option("-c"))

    def start_client(self):
        self.client = self._bed.cli.spawn(
            [self._program, "client", "-H", self._bed.srv.address(self._family), "-p", self.port, *self._client_args],
            name="stream_peer client")
        return self.client

    def check(self, timeout_s):
        """Waits for the end; returns the client's and the server's reports. Raises Failed if a byte was wrong."""
        code = self.client.finish(timeout_s)
        expect(code is not None, f"the client had not ended after {timeout_s} s")
        if self.server.finish(timeout_s) is None:
            raise Failed(f"the server had not ended {timeout_s} s after the client: {self.client.tail()}")
        ours, theirs = self.client.out.last_json(), self.server.out.last_json()
        expect(ours is not None and theirs is not None,
               f"no report: client: {self.client.tail()}; server: {self.server.tail()}")
        expect(code == 0 and ours["failed"] == 0, f"client: {json.dumps(ours['failures'])}")
        expect(theirs["failed"] == 0, f"server: {json.dumps(theirs['failures'])}")
        for sent, received in ((ours, theirs), (theirs, ours)):
            expect(sent["bytes_sent"] == received["bytes_received"], "the byte counts of the two sides differ")
            expect(sent["digest_sent"] == received["digest_received"], "the digests of the two sides differ")
        expect(ours["connections"] == theirs["connections"], "the numbers of connections differ")
        return ours, theirs
