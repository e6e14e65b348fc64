"""Child processes of the test bed: output collected by threads, ended by pid with deadlines, never by name.

One `Registry` per bed owns all of them; its close() ends what still runs, latest first.
"""

import json
import os
import re
import signal
import subprocess
import threading
import time


class ProcessError(RuntimeError):
    """A program could not be started, did not get ready, or ended in a way it should not."""


def last_json(text):
    """The last line that is a JSON object, or the whole text if that is one; None when there is none."""
    for candidate in [line for line in reversed(text.splitlines()) if line.startswith("{")] + [text]:
        try:
            return json.loads(candidate)
        except ValueError:
            continue
    return None


class Output:
    """Lines of one stream, added by a reader thread; whoever waits is woken by each line."""

    def __init__(self, stream):
        self._lines = []
        self._ended = False
        self._changed = threading.Condition()
        self._thread = threading.Thread(target=self._read, args=(stream,), daemon=True)
        self._thread.start()

    def _read(self, stream):
        with stream:
            for line in stream:
                with self._changed:
                    self._lines.append(line.rstrip("\n"))
                    self._changed.notify_all()
        with self._changed:
            self._ended = True
            self._changed.notify_all()

    def wait_for(self, pattern, timeout_s):
        """The match of the first line that matches; None at the end of the stream or after the time-out."""
        regex = re.compile(pattern)
        deadline = time.monotonic() + timeout_s
        seen = 0
        with self._changed:
            while True:
                while seen < len(self._lines):
                    match = regex.search(self._lines[seen])
                    if match:
                        return match
                    seen += 1
                left = deadline - time.monotonic()
                if self._ended or left <= 0:
                    return None
                self._changed.wait(left)

    def join(self, timeout_s):
        self._thread.join(timeout_s)

    def text(self):
        with self._changed:
            return "\n".join(self._lines)

    def last_json(self):
        return last_json(self.text())


class Child:
    """A running program. `pid` is the program's own: every wrapper (nsenter, taskset, env) execs."""

    def __init__(self, argv, name, cwd=None):
        self.name = name
        self.argv = argv
        try:
            self._popen = subprocess.Popen(
                argv, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE, cwd=cwd,
                text=True, errors="replace", start_new_session=True)
        except OSError as failure:
            raise ProcessError(f"{name}: cannot start {argv[0]}: {failure}") from failure
        self.pid = self._popen.pid
        self.out = Output(self._popen.stdout)
        self.err = Output(self._popen.stderr)

    def running(self):
        return self._popen.poll() is None

    @property
    def exit_code(self):
        return self._popen.poll()

    def wait_ready(self, pattern=r"^ready\b ?(\d*)", timeout_s=10, stream="out"):
        """Waits for the line by which the program says that it serves; returns the match."""
        match = getattr(self, stream).wait_for(pattern, timeout_s)
        if match is None:
            state = "still runs" if self.running() else f"exit code {self.exit_code}"
            raise ProcessError(f"{self.name}: not ready after {timeout_s} s ({state}): {self.tail()}")
        return match

    def finish(self, timeout_s):
        """Waits for the program's own end; kills it at the deadline. Returns the exit code, None when killed."""
        try:
            code = self._popen.wait(timeout_s)
        except subprocess.TimeoutExpired:
            self.kill()
            return None
        self._join_output()
        return code

    def send_signal(self, number):
        if self.running():
            self._popen.send_signal(number)

    def stop(self, number=signal.SIGTERM, timeout_s=5):
        """Asks it to end, kills it at the deadline. Returns the exit code, None when it had to be killed."""
        self.send_signal(number)
        return self.finish(timeout_s)

    def kill(self):
        if self.running():
            self._popen.kill()
        self._popen.wait()
        self._join_output()

    def _join_output(self):
        # A grandchild may hold the pipe open for a while (redis-server's BGSAVE); that is not waited for.
        self.out.join(1)
        self.err.join(1)

    def tail(self, lines=6):
        text = [line for line in (self.err.text() + "\n" + self.out.text()).splitlines() if line.strip()]
        return " | ".join(text[-lines:]) or "(no output)"


def start_time(pid):
    """The start time of a process in ticks (with the pid it names a process for good); None when it is gone."""
    try:
        with open(f"/proc/{pid}/stat", encoding="ascii", errors="replace") as file:
            return file.read().rsplit(")", 1)[1].split()[19]
    except OSError:
        return None


class Registry:
    """All children of a bed, also noted in a file so that a later bed can end what a killed script left behind."""

    def __init__(self, note_path):
        self._children = []
        self._note_path = note_path

    def start(self, argv, name, cwd=None):
        child = Child(argv, name, cwd)
        self._children.append(child)
        with open(self._note_path, "a", encoding="ascii") as note:
            note.write(f"{child.pid} {start_time(child.pid)}\n")
        return child

    def end_all_but(self, kept):
        """Kills all children that are not in `kept`."""
        for child in reversed(self._children):
            if child not in kept:
                child.kill()
        self._children = [child for child in self._children if child in kept]

    def stop_all_but(self, kept, skip=()):
        """Asks all others to end, latest first; those named in `skip` go on."""
        for child in reversed(self._children):
            if child not in kept and child.name not in skip:
                child.stop()

    def close(self):
        for child in reversed(self._children):
            child.stop()
        self._children.clear()


def end_leftovers(note_path):
    """Ends the processes that a dead script noted, if they are still the same ones."""
    try:
        with open(note_path, encoding="ascii") as note:
            entries = [line.split() for line in note]
    except OSError:
        return
    for entry in entries:
        if len(entry) == 2 and entry[1] != "None" and start_time(entry[0]) == entry[1]:
            try:
                os.kill(int(entry[0]), signal.SIGKILL)
            except ProcessLookupError:
                pass


def capture_output(argv, timeout_s=30):
    """Runs a short command; returns (exit code, stdout, stderr). Exit code 124 when it took too long."""
    try:
        done = subprocess.run(argv, stdin=subprocess.DEVNULL, capture_output=True, text=True, errors="replace",
                              timeout=timeout_s, check=False)
    except subprocess.TimeoutExpired as late:
        return 124, "", f"no end within {timeout_s} s: {late.cmd}"
    except OSError as failure:
        return 127, "", str(failure)
    return done.returncode, done.stdout, done.stderr
