#!/usr/bin/env python3
"""Files of many sizes by curl from an unmodified HTTP server on Twinstack, under constant forced moves; every file is
compared byte by byte. The server is our file_server, and nginx where it is installed."""

import os
import random
import shutil
import sys

import testbed
from bed.load import Moves, start_server

SIZES = (0, 1, 2, 1447, 1448, 1449, 4096, 65535, 65536, 65537, 1_000_000, 9_999_999, 40_000_000)
NGINX_PORT = 8081


def make_files(bed):
    """{name: content} of the files in the scratch folder."""
    folder = bed.path("files")
    os.makedirs(folder)
    os.chmod(folder, 0o755)
    rng = random.Random(20)
    contents = {}
    for size in SIZES:
        data = rng.randbytes(size)
        with open(os.path.join(folder, f"f{size}"), "wb") as file:
            file.write(data)
        contents[f"f{size}"] = data
    return contents


def start_nginx(bed, service):
    """One worker process in the foreground, configuration in the scratch folder."""
    config = bed.path("nginx.conf")
    temporary = " ".join(f"{kind}_temp_path {bed.scratch}/{kind};"
                         for kind in ("client_body", "proxy", "fastcgi", "uwsgi", "scgi"))
    with open(config, "w", encoding="ascii") as file:
        file.write(f"daemon off; master_process off; pid {bed.scratch}/nginx.pid; error_log stderr notice;\n"
                   "events { worker_connections 256; }\n"
                   f"http {{ access_log off; {temporary} sendfile off; keepalive_timeout 30;\n"
                   f"  server {{ listen {NGINX_PORT}; listen [::]:{NGINX_PORT}; root {bed.path('files')}; }} }}\n")
    server = bed.srv.spawn(service.run_under(["nginx", "-c", config, "-e", "stderr"]), name="nginx")
    server.wait_ready(r"start worker process|using the .* event method", stream="err")
    return server, NGINX_PORT


def url(bed, family, port, name):
    host = bed.srv.address(family)
    return f"http://{host if family == 4 else '[' + host + ']'}:{port}/{name}"


def fetch(bed, family, port, names, folder):
    """All names over one kept-alive curl into `folder`."""
    os.makedirs(folder, exist_ok=True)
    arguments = []
    for name in names:
        arguments += ["-o", os.path.join(folder, name), url(bed, family, port, name)]
    return bed.cli.spawn(["curl", "-sS", "-f", "-g", "--fail-early", "--max-time", "120", *arguments], name="curl")


def compare(folder, names, contents):
    """Number of bytes compared."""
    total = 0
    for name in names:
        path = os.path.join(folder, name)
        data = b""
        if os.path.exists(path):  # curl makes no file for an empty body
            with open(path, "rb") as file:
                data = file.read()
        difference = testbed.difference(data, contents[name])
        testbed.expect(not difference, f"{name}: {difference}")
        total += len(data)
    return total


def compare_partial(folder, names, contents):
    """After a failed transfer: wrong bytes are worse than missing ones, so they are looked for first."""
    for name in names:
        path = os.path.join(folder, name)
        if os.path.exists(path):
            with open(path, "rb") as file:
                difference = testbed.difference(file.read(), contents[name])
            testbed.expect("WRONG" not in difference, f"{name}: {difference}")


def curl_case(bed, service, args, family, start, contents):
    watch = testbed.PeerWatch(bed)
    server, port = start(bed, service)
    names = list(contents)
    total = 0
    with Moves(service, args.interval_ms, args.duration * 20 + 120) as moves:
        for round_number in range(max(1, round(args.duration / 2))):
            # Three strangers at a time, each in its own order.
            running = []
            for stranger in range(3):
                order = random.Random(round_number * 10 + stranger).sample(names, len(names))
                folder = bed.path(f"got-{stranger}")
                running.append((fetch(bed, family, port, order, folder), folder))
            for child, folder in running:
                code = child.finish(120)
                if code != 0:
                    compare_partial(folder, names, contents)
                testbed.expect(code == 0, f"curl: exit code {code}: {child.tail()}")
                total += compare(folder, names, contents)
                shutil.rmtree(folder)
    server.stop()
    watch.stop().check()
    return f"{testbed.size(total)} compared, {moves.text()}"


def start_file_server(bed, service):
    return start_server(bed, service, [testbed.program("file_server"), "-b", "::", "-d", bed.path("files")])


def main():
    args = testbed.arguments(__doc__, duration=4.0).parse_args()
    testbed.exit_if_unavailable(args.no_service)
    cases = testbed.Cases("files by curl" + (", kernel only" if args.no_service else " under forced moves"))
    servers = [("file_server", start_file_server)]
    if shutil.which("nginx"):
        servers.append(("nginx", start_nginx))
    with testbed.Bed(queues=2) as bed:
        cases.after_failure = bed.end_programs
        service = bed.service_for(args)
        contents = make_files(bed)
        for family in testbed.families(args):
            for name, start in servers:
                if args.only in name:
                    cases.run(f"curl from {name} IPv{family}", curl_case, bed, service, args, family, start, contents)
        cases.run("service ends well", service.stop)
    return cases.summary()


if __name__ == "__main__":
    sys.exit(testbed.main(main))
