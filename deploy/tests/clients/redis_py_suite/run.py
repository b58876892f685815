"""redis-py's own test suite against the plain port of a node, over RESP2 and RESP3. Exit code 1 if what
does not pass is not exactly what stands in expected.txt; a line for each difference.

    run.py [--protocol 2|3] [--redis] [PYTEST ARGUMENT...]

`make redis-py-suite` runs it. With `--redis` it runs against the redis-server of the machine instead:
what fails there too is not for us to mend. Further arguments (a file, `-k NAME`) are given to pytest,
and then only what was run is compared."""

import argparse
import collections
import contextlib
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

HERE = Path(__file__).parent
EXPECTED = HERE / "expected.txt"
# How long a server may take to answer, and to end.
PATIENCE_SECONDS = 60.0
# As redis-py's own CI runs a single server: tests of Redis Cluster and of Redis Enterprise's fault
# injector are others.
SELECTION = [
    *("-m", "not onlycluster"),
    *("--ignore=tests/test_scenario", "--ignore=tests/test_asyncio/test_scenario"),
]
# Seconds for a test, instead of the suite's 30: machines may be busy.
TEST_TIMEOUT = 120
# Bytes that the node gets, instead of a quarter of the machine.
NODE_MEMORY = 256 << 20
PROTOCOLS = ("2", "3")


def suite() -> Path:
    """Where .ci/setup-redis-py-suite puts the suite."""
    cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    return Path(os.environ.get("FLOTILLA_REDIS_PY_SUITE") or cache / "flotilla/redis-py-suite")


def free_ports(count: int) -> list[int]:
    with contextlib.ExitStack() as held:
        sockets = [held.enter_context(socket.socket()) for _ in range(count)]
        for one in sockets:
            one.bind(("127.0.0.1", 0))
        return [one.getsockname()[1] for one in sockets]


@contextlib.contextmanager
def process(command: Sequence[str | Path], log: Path) -> Iterator[None]:
    with log.open("wb") as out:
        running = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=out, stderr=out)
    try:
        yield
    finally:
        running.terminate()
        try:
            running.wait(PATIENCE_SECONDS)
        except subprocess.TimeoutExpired:
            running.kill()
            running.wait()


def answers(port: int) -> bool:
    """Whether a write is carried out there."""
    with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), 1) as link:
        link.settimeout(10)
        link.sendall(b"DEL ready\r\n")
        return link.recv(64).startswith(b":")
    return False


def wait_for(port: int, place: Path) -> None:
    deadline = time.monotonic() + PATIENCE_SECONDS
    while not answers(port):
        if time.monotonic() > deadline:
            raise SystemExit(f"run.py: no server at port {port} yet: see the logs in {place}")
        time.sleep(0.1)


def configure(binary: str, place: Path, role: str, settings: str) -> Path:
    """The configuration of a process, with its certificate."""
    certs = f"{place}/certs"
    issue = [binary, "cert", "issue", "--authority", f"{place}/ca", "--out", certs]
    name = ["--cluster", "1", "--role", role, "--name", "one"]
    subprocess.run([*issue, *name], check=True, stdout=subprocess.DEVNULL)
    tls = f'ca = "{certs}/ca.pem", cert = "{certs}/{role}-one.pem", key = "{certs}/{role}-one.key"'
    common = f'name = "one"\ncluster = 1\ndir = "{place / role}"\ntls = {{ {tls} }}\n'
    file = place / f"{role}.toml"
    file.write_text(common + settings)
    return file


@contextlib.contextmanager
def flotilla(place: Path) -> Iterator[int]:
    """A cluster of one node whose namespace has one group, so that commands and transactions may take
    any keys, as in a single Redis. Gives the plain port."""
    binary = os.environ.get("FLOTILLA_BIN")
    if not binary:
        raise SystemExit("run.py: set FLOTILLA_BIN to the flotilla binary, or use make redis-py-suite")
    ports = free_ports(6)
    pd_rpc, pd_http, rpc, http, resp, cluster = [f'"127.0.0.1:{port}"' for port in ports]
    authority = [binary, "cert", "authority", "--out", f"{place}/ca"]
    subprocess.run(authority, check=True, stdout=subprocess.DEVNULL)
    pd = f"""
        cluster_name = "one"
        listen = {{ rpc = {pd_rpc}, http = {pd_http} }}
        bootstrap = {{ nodes = 1, partitions = 1, replicas = 1 }}
    """
    node = f"""
        datacenter = "one"
        pd = [{pd_rpc}]
        memory = {NODE_MEMORY}
        listen = {{ rpc = {rpc}, http = {http}, resp = {resp}, cluster_resp = {cluster} }}
    """
    with contextlib.ExitStack() as running:
        for role, settings in (("pd", pd), ("node", node)):
            config = configure(binary, place, role, settings)
            running.enter_context(process([binary, role, "--config", config], place / f"{role}.log"))
        wait_for(ports[4], place)
        yield ports[4]


@contextlib.contextmanager
def redis_server(place: Path) -> Iterator[int]:
    (port,) = free_ports(1)
    command = ["redis-server", "--port", str(port), "--save", "", "--dir", str(place)]
    with process([*command, "--enable-debug-command", "yes"], place / "redis.log"):
        wait_for(port, place)
        yield port


@dataclass
class Outcome:
    test: str
    outcome: str
    why: str


def run_suite(port: int, protocol: str, place: Path, more: list[str]) -> list[Outcome]:
    outcomes = place / f"resp{protocol}.jsonl"
    log = place / f"resp{protocol}.log"
    url = f"redis://127.0.0.1:{port}"
    command = [
        *(f"{suite()}/venv/bin/python", "-m", "pytest", "-q", "--tb=native", "-o", "addopts="),
        *("-p", "plugin", "-p", "no:cacheprovider", f"--outcomes={outcomes}"),
        f"--timeout={TEST_TIMEOUT}",
        *(f"--redis-url={url}/0", f"--redis-mod-url={url}", f"--protocol={protocol}"),
        *SELECTION,
        *more,
    ]
    source = suite() / "source"
    env = {**os.environ, "PYTHONPATH": str(HERE), "PYTHONDONTWRITEBYTECODE": "1"}
    with log.open("wb") as out:
        done = subprocess.call(command, cwd=source, env=env, stdout=out, stderr=out)
    # 0 all passed, 1 some failed; anything else is no result.
    if done not in (0, 1):
        raise SystemExit(f"run.py: pytest ended with {done}, see {log}")
    return [Outcome(**json.loads(line)) for line in outcomes.read_text().splitlines()]


@dataclass
class Expected:
    """What expected.txt says."""

    # (test, protocol) to the reason under which it stands; without `[...]` it is all variants of a test
    failing: dict[tuple[str, str], str] = field(default_factory=dict)
    # (protocol, why) to how many tests
    skipped: dict[tuple[str, str], int] = field(default_factory=dict)

    def reason(self, test: str, protocol: str) -> str | None:
        """Why a test is expected to fail, if it is."""
        whole = self.failing.get((without_variant(test), protocol))
        return whole or self.failing.get((test, protocol))


def without_variant(test: str) -> str:
    return test.partition("[")[0]


def read_expected(text: str) -> Expected:
    """`= REASON` begins a group of tests, each a line: by itself for both protocols, or behind `RESP2` or
    `RESP3`. Lines of the group `skipped` are a number of tests and why. `#` begins a comment."""
    found = Expected()
    reason = ""
    for number, line in enumerate(text.splitlines(), 1):
        first, _, rest = line.partition(" ")
        if not line or first == "#":
            continue
        if first == "=":
            reason = rest
            continue
        one = {"RESP2": "2", "RESP3": "3"}.get(first)
        what = rest if one else line
        for protocol in [one] if one else PROTOCOLS:
            if reason == "skipped":
                count, _, why = what.partition(" ")
                found.skipped[protocol, why] = int(count)
            elif not reason or found.reason(what, protocol):
                raise SystemExit(f"{EXPECTED}:{number}: without a reason, or there twice: {what}")
            else:
                found.failing[what, protocol] = reason
    return found


def compare(protocol: str, outcomes: list[Outcome], expected: Expected, whole: bool) -> list[str]:
    """The differences, a line each. `whole`: the whole suite was run."""
    lines = []
    for one in outcomes:
        reason = expected.reason(one.test, protocol)
        if one.outcome == "failed" and not reason:
            lines.append(f"RESP{protocol} failed, not listed: {one.test}: {one.why}")
        elif one.outcome != "failed" and reason:
            lines.append(f"RESP{protocol} {one.outcome}, but listed under {reason}: {one.test}")
    if not whole:
        return lines
    ran = {name for one in outcomes for name in (one.test, without_variant(one.test))}
    for test, of in expected.failing:
        if of == protocol and test not in ran:
            lines.append(f"RESP{protocol} is listed, and there is no such test: {test}")
    skips = collections.Counter(one.why for one in outcomes if one.outcome == "skipped")
    listed = {why: count for (of, why), count in expected.skipped.items() if of == protocol}
    for why in sorted(skips.keys() | listed.keys()):
        if skips[why] != listed.get(why, 0):
            lines.append(f"RESP{protocol} skips {skips[why]} tests, not {listed.get(why, 0)}: {why}")
    return lines


def main() -> int:
    # Servers end with us, also when we are told to.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(f"{Path(__file__).name}: terminated"))
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--protocol", choices=PROTOCOLS, help="default: both")
    parser.add_argument("--redis", action="store_true", help="against redis-server; nothing is compared")
    args, more = parser.parse_known_args()
    if not (suite() / ".version").exists():
        raise SystemExit("run.py: the suite is not installed: run .ci/setup-redis-py-suite")
    expected = read_expected(EXPECTED.read_text())
    place = Path(tempfile.mkdtemp(prefix="flotilla-redis-py-"))
    differences: list[str] = []
    with (redis_server if args.redis else flotilla)(place) as port:
        for protocol in [args.protocol] if args.protocol else PROTOCOLS:
            began = time.monotonic()
            outcomes = run_suite(port, protocol, place, more)
            took = time.monotonic() - began
            print(totals(protocol, outcomes, expected, took), flush=True)
            if not args.redis:
                differences += compare(protocol, outcomes, expected, whole=not more)
    print("".join(f"{line}\n" for line in differences), end="")
    if differences or args.redis:
        print(f"logs and outcomes are in {place}")
    else:
        shutil.rmtree(place)
    return 1 if differences else 0


def totals(protocol: str, outcomes: list[Outcome], expected: Expected, seconds: float) -> str:
    counts = collections.Counter(one.outcome for one in outcomes)
    failed = [one for one in outcomes if one.outcome == "failed"]
    listed = sum(expected.reason(one.test, protocol) is not None for one in failed)
    return (
        f"redis-py suite, RESP{protocol}: {counts['passed']} passed, {listed} failed as expected, "
        f"{len(failed) - listed} failed otherwise, {counts['skipped']} skipped, {seconds:.0f} s"
    )


if __name__ == "__main__":
    sys.exit(main())
