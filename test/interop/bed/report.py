"""What the scripts print: a progress line, tables, and the verdicts `ok`/`FAILED` with the final count."""

import os
import shutil
import sys
import time
import traceback


class Progress:
    """One line that is rewritten on a terminal, or a line every few seconds into a file."""

    def __init__(self, quiet=False, interval_s=None):
        self._tty = sys.stdout.isatty()
        self._interval = interval_s if interval_s is not None else (0.2 if self._tty else 5.0)
        self._quiet = quiet
        self._last = 0.0
        self._shown = False
        self._start = time.monotonic()

    def update(self, text, force=False):
        now = time.monotonic()
        if self._quiet or (not force and now - self._last < self._interval):
            return
        self._last = now
        line = f"  {now - self._start:5.1f} s  {text}"
        if self._tty:
            width = shutil.get_terminal_size().columns - 1
            sys.stdout.write("\r" + line[:width].ljust(width))
            self._shown = True
        else:
            sys.stdout.write(line + "\n")
        sys.stdout.flush()

    def done(self):
        if self._shown:
            sys.stdout.write("\n")
            sys.stdout.flush()
            self._shown = False


def table(rows, headings=None, indent="  "):
    """Text of a table: first column to the left, the others to the right."""
    cells = [[str(cell) for cell in row] for row in ([headings] if headings else []) + list(rows)]
    if not cells:
        return ""
    columns = max(len(row) for row in cells)
    cells = [row + [""] * (columns - len(row)) for row in cells]
    widths = [max(len(row[i]) for row in cells) for i in range(columns)]
    lines = []
    for number, row in enumerate(cells):
        parts = [row[0].ljust(widths[0])] + [cell.rjust(width) for cell, width in zip(row[1:], widths[1:])]
        lines.append((indent + "  ".join(parts)).rstrip())
        if headings and number == 0:
            lines.append(indent + "-" * (sum(widths) + 2 * (columns - 1)))
    return "\n".join(lines)


def size(count):
    """Bytes for people: 12.3 MB."""
    for unit in ("B", "kB", "MB", "GB"):
        if count < 1000 or unit == "GB":
            return f"{count:.0f} {unit}" if unit == "B" else f"{count:.1f} {unit}"
        count /= 1000
    return ""


def microseconds(nanoseconds):
    return f"{nanoseconds / 1000:.1f}"


def difference(got, wanted):
    """Where two byte strings differ, in words; empty when they are the same."""
    if got == wanted:
        return ""
    common = min(len(got), len(wanted))
    at = next((i for i in range(0, common, 4096) if got[i:i + 4096] != wanted[i:i + 4096]), None)
    if at is not None:
        at = next((i for i in range(at, common) if got[i] != wanted[i]), None)
    if at is None:
        return f"{len(got)} of {len(wanted)} bytes came, all right so far"
    found = wanted.find(got[at:at + 64]) if len(got) - at >= 64 else -1
    place = f"; what came there belongs to {found}" if found >= 0 else ""
    return f"WRONG BYTES from {at} on ({len(got)} of {len(wanted)} came{place})"


class Failed(AssertionError):
    """A check of a case did not hold."""


def expect(condition, text):
    if not condition:
        raise Failed(text)


class Cases:
    """Runs named cases one by one; a case fails by an exception. `summary()` prints `N passed, N failed`."""

    def __init__(self, title):
        self.passed = 0
        self.failed = 0
        self.after_failure = lambda: None  # e.g. Bed.end_programs, so that the next case starts afresh
        print(f"== {title}", flush=True)

    def run(self, name, function, *args, **kwargs):
        start = time.monotonic()
        try:
            detail = function(*args, **kwargs)
        except KeyboardInterrupt:
            raise
        except Exception as failure:  # pylint: disable=broad-except  # a case may fail in any way
            self.failed += 1
            print(f"FAILED {name}: {failure}", flush=True)
            if os.environ.get("TESTBED_TRACE") or not isinstance(failure, (AssertionError, RuntimeError)):
                traceback.print_exc()
            self.after_failure()
            return False
        self.passed += 1
        print(f"ok     {name} ({time.monotonic() - start:.1f} s{', ' + detail if detail else ''})", flush=True)
        return True

    def summary(self):
        """Prints the count; returns the exit code."""
        print(f"{self.passed} passed, {self.failed} failed", flush=True)
        return 1 if self.failed or not self.passed else 0
