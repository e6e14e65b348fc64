"""Unit tests of what the interop scripts judge by; no privileges needed: python3 -m unittest, see CMakeLists.txt."""

import os
import struct
import subprocess
import sys
import tempfile
import unittest

sys.path.insert(0, os.path.join(os.path.dirname(os.path.realpath(__file__)), ".."))
import testbed  # noqa: E402
from bed import capture, counters, processes, report, resp  # noqa: E402
from bed.capture import ACK, FIN, RST, SYN  # noqa: E402

A4, B4 = bytes([10, 78, 0, 1]), bytes([10, 78, 0, 2])
A6, B6 = bytes.fromhex("fd78" + "00" * 13 + "01"), bytes.fromhex("fd78" + "00" * 13 + "02")


def packet(source, destination, sequence, flags, payload, sport=1000, dport=2000):
    """An Ethernet frame; only its first 128 bytes are kept, as tcpdump -s 128 does."""
    tcp = struct.pack("!HHIIBBHHH", sport, dport, sequence & 0xffffffff, 0, 5 << 4, flags, 100, 0, 0)
    if len(source) == 4:
        ip = struct.pack("!BBHHHBBH4s4s", 0x45, 0, 40 + payload, 0, 0, 64, 6, 0, source, destination)
        kind = 0x0800
    else:
        ip = struct.pack("!IHBB16s16s", 6 << 28, 20 + payload, 6, 64, source, destination)
        kind = 0x86dd
    return (b"\0" * 12 + struct.pack("!H", kind) + ip + tcp + b"x" * payload)[:128]


def analyse(packets):
    with tempfile.NamedTemporaryFile(suffix=".pcap") as file:
        file.write(struct.pack("<IHHiIII", 0xa1b2c3d4, 2, 4, 0, 0, 128, 1))
        for number, data in enumerate(packets):
            file.write(struct.pack("<IIII", 100 + number, 5, len(data), len(data)) + data)
        file.flush()
        analysis = capture.Analysis()
        analysis.add_file(file.name, 1000)
        return analysis


class CaptureTest(unittest.TestCase):
    def test_data_in_order_is_no_retransmission(self):
        for a, b in ((A4, B4), (A6, B6)):
            analysis = analyse([packet(a, b, 0xfffffff0, ACK, 32), packet(a, b, 0x10, ACK, 40000 % 1400),
                                packet(b, a, 5, ACK, 10)])
            self.assertEqual(analysis.retransmissions(), 0)
            self.assertEqual(analysis.packets, 3)
            self.assertEqual(sum(analysis.bytes_by_source.values()), 32 + 40000 % 1400 + 10)

    def test_repeated_data_counts_for_its_source(self):
        analysis = analyse([packet(A4, B4, 100, ACK, 50), packet(A4, B4, 150, ACK, 50), packet(A4, B4, 120, ACK, 90),
                            packet(A4, B4, 100, ACK, 50), packet(B4, A4, 100, ACK, 50)])
        self.assertEqual(analysis.retransmitted_by_source, {"10.78.0.1": 2})

    def test_probes_and_new_connections_are_no_retransmission(self):
        analysis = analyse([packet(A4, B4, 1000, ACK, 50), packet(A4, B4, 1049, ACK, 0), packet(A4, B4, 5, SYN, 0),
                            packet(A4, B4, 6, ACK, 50)])
        self.assertEqual(analysis.retransmissions(), 0)

    def test_resets_are_found_in_both_families(self):
        analysis = analyse([packet(A4, B4, 1, RST | ACK, 0), packet(B6, A6, 1, RST, 0),
                            packet(A4, B4, 1, FIN | ACK, 0)])
        self.assertEqual([(r.source, r.with_ack) for r in analysis.resets], [("10.78.0.1", True), ("fd78::2", False)])
        self.assertEqual(len(analysis.ends), 1)

    def test_a_file_that_is_no_capture_is_refused(self):
        with tempfile.NamedTemporaryFile() as file:
            file.write(b"x" * 100)
            file.flush()
            with self.assertRaises(ValueError):
                capture.Analysis().add_file(file.name, 10)


class Side:
    """Stands for a namespace with one address."""

    def __init__(self, address):
        self._address = address

    def addresses(self):
        return {self._address}


class JudgeTest(unittest.TestCase):
    """Which RSTs a program asked for."""

    @staticmethod
    def judge(packets, server_aborts=0):
        sides = [Side("10.78.0.1"), Side("10.78.0.2")]
        watch = testbed.PeerWatch.__new__(testbed.PeerWatch)
        watch._sides = sides
        watch.analysis = analyse(packets)
        watch.bad_resets, watch.program_resets = [], []
        watch._judge({sides[0]: {"TcpExtTCPAbortOnClose": server_aborts}, sides[1]: {}})
        return len(watch.bad_resets), len(watch.program_resets)

    def test_an_answer_to_an_unknown_packet_is_bad(self):
        self.assertEqual(self.judge([packet(A4, B4, 1, RST, 0)]), (1, 0))

    def test_an_abort_that_no_kernel_counted_is_bad(self):
        self.assertEqual(self.judge([packet(A4, B4, 1, RST | ACK, 0)]), (1, 0))

    def test_a_close_with_unread_data_and_what_follows_is_the_programs(self):
        self.assertEqual(self.judge([packet(A4, B4, 1, RST | ACK, 0), packet(A4, B4, 1, RST, 0)], 1), (0, 2))

    def test_each_counted_abort_excuses_one(self):
        self.assertEqual(
            self.judge([packet(A4, B4, 1, RST | ACK, 0), packet(A4, B4, 1, RST | ACK, 0, sport=7)], 1), (1, 1))

    def test_after_the_own_fin_it_is_the_programs_but_not_before(self):
        self.assertEqual(self.judge([packet(A4, B4, 1, FIN | ACK, 0), packet(A4, B4, 2, RST, 0)]), (0, 1))
        self.assertEqual(self.judge([packet(A4, B4, 2, RST, 0), packet(A4, B4, 1, FIN | ACK, 0)]), (1, 0))
        self.assertEqual(self.judge([packet(B4, A4, 1, FIN | ACK, 0, 2000, 1000), packet(A4, B4, 2, RST, 0)]), (1, 0))


class CountersTest(unittest.TestCase):
    def test_names_and_values_stand_in_pairs_of_lines(self):
        text = "Tcp: RetransSegs OutRsts\nTcp: 5 -1\nTcpExt: TCPTimeouts\nTcpExt: 7\n"
        self.assertEqual(counters.parse_netstat(text), {"TcpRetransSegs": 5, "TcpOutRsts": -1, "TcpExtTCPTimeouts": 7})

    def test_percentiles_and_median(self):
        values = list(range(1, 101))
        self.assertEqual([counters.percentile(values, q) for q in (0, 50, 99, 100)], [1, 50, 99, 100])
        self.assertEqual(counters.percentile([], 50), 0)
        self.assertEqual(counters.median([3, 1, 2]), 2)
        self.assertEqual(counters.median([4, 1, 2, 3]), 2.5)

    def test_own_cpu_time_grows(self):
        before = counters.cpu_us(os.getpid())
        sum(range(2_000_000))
        self.assertGreater(counters.cpu_us(os.getpid()), before)


class ProcessesTest(unittest.TestCase):
    def setUp(self):
        self.folder = tempfile.TemporaryDirectory()
        self.registry = processes.Registry(os.path.join(self.folder.name, "pids"))

    def tearDown(self):
        self.registry.close()
        self.folder.cleanup()

    def test_ready_line_and_last_json(self):
        child = self.registry.start(["sh", "-c", "echo ready 42; echo '{\"a\": 1}'; echo end"], "echo")
        self.assertEqual(child.wait_ready().group(1), "42")
        self.assertEqual(child.finish(10), 0)
        self.assertEqual(child.out.last_json(), {"a": 1})

    def test_a_program_that_ends_before_it_is_ready_is_an_error_at_once(self):
        child = self.registry.start(["sh", "-c", "echo broken >&2; exit 3"], "broken")
        with self.assertRaisesRegex(processes.ProcessError, "broken"):
            child.wait_ready(timeout_s=60)

    def test_stop_kills_at_the_deadline(self):
        child = self.registry.start(["sh", "-c", "trap '' TERM; echo ready; while :; do sleep 0.05; done"], "stubborn")
        child.wait_ready()
        self.assertIsNone(child.stop(timeout_s=0.3))
        self.assertFalse(child.running())

    def test_leftovers_of_a_dead_script_are_ended_and_strangers_are_not(self):
        child = self.registry.start(["sleep", "100"], "sleep")
        stranger = self.registry.start(["sleep", "100"], "sleep")
        note = os.path.join(self.folder.name, "old")
        with open(note, "w", encoding="ascii") as file:
            file.write(f"{child.pid} {processes.start_time(child.pid)}\n{stranger.pid} 1\n999999999 5\n")
        processes.end_leftovers(note)
        self.assertEqual(child.finish(10), -9)
        self.assertTrue(stranger.running())


class ReportTest(unittest.TestCase):
    def test_a_failing_case_counts_and_cleans_up(self):
        called = []
        with open(os.devnull, "w", encoding="ascii") as quiet:
            stdout, sys.stdout = sys.stdout, quiet
            try:
                cases = report.Cases("test")
                cases.after_failure = lambda: called.append(1)
                cases.run("good", lambda: "fine")
                cases.run("bad", lambda: report.expect(False, "no"))
                code = cases.summary()
            finally:
                sys.stdout = stdout
        self.assertEqual((cases.passed, cases.failed, code, called), (1, 1, 1, [1]))

    def test_nothing_run_is_no_success(self):
        with open(os.devnull, "w", encoding="ascii") as quiet:
            stdout, sys.stdout = sys.stdout, quiet
            try:
                self.assertEqual(report.Cases("test").summary(), 1)
            finally:
                sys.stdout = stdout

    def test_table(self):
        self.assertEqual(report.table([("a", 1), ("bb", 22)], indent=""), "a    1\nbb  22")

    def test_resp_encoding_counts_bytes(self):
        self.assertEqual(resp.Client.encode(("SET", "\u00e4", b"\r\n")),
                         b"*3\r\n$3\r\nSET\r\n$2\r\n\xc3\xa4\r\n$2\r\n\r\n\r\n")


class CountTestsTest(unittest.TestCase):
    """tools/count-tests on a report as CTest writes it."""

    XML = """<testsuite>
      <testcase name="gtest" status="run"><system-out>[  PASSED  ] 7 tests.
[  SKIPPED ] 2 tests, listed below:</system-out></testcase>
      <testcase name="plain" status="run"><system-out>fine</system-out></testcase>
      <testcase name="broken" status="fail"><failure message=""/><system-out>[  PASSED  ] 3 tests.
[  FAILED  ] 2 tests, listed below:</system-out></testcase>
      <testcase name="crash" status="fail"><failure message=""/><system-out>Segmentation fault</system-out></testcase>
      <testcase name="absent" status="notrun"><skipped message=""/></testcase>
      <testcase name="notbuilt" status="notrun"/>
    </testsuite>"""

    def test_counts(self):
        with tempfile.NamedTemporaryFile("w", suffix=".xml") as file:
            file.write(self.XML)
            file.flush()
            done = subprocess.run([os.path.join(testbed.ROOT, "tools", "count-tests"), file.name], capture_output=True,
                                  text=True, check=True)
        self.assertEqual(done.stdout.split(), ["11", "4", "3"])
        self.assertIn("Segmentation fault", done.stderr)


if __name__ == "__main__":
    unittest.main()
