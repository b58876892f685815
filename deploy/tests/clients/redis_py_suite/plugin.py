"""A pytest plugin for redis-py's own test suite against a Flotilla node. Bodies of tests are left as
they are; fixtures get what they need, and what became of each test is written down.

Fixtures empty the database with FLUSHDB and FLUSHALL, which Flotilla refuses: while a test is set up
and torn down these find all keys with SCAN and delete them with UNLINK. A test that sends them itself
gets the refusal.

Tests of what Flotilla has of releases later than INFO says are run too. Some tests leave out the port:
what connects to Redis' own gets to the node.

`--outcomes FILE`: a line of JSON for each test, `{"test", "outcome", "why"}`, with outcome `passed`,
`failed` (also in a fixture) or `skipped` (also those that the suite expects to fail)."""

import json
import re
import socket
from collections.abc import Generator, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from unittest import mock
from urllib.parse import urlsplit

import pytest
import redis
import redis.asyncio

# Redis 8.4: SET with IFEQ and IFNE, and DELEX with them.
LATER = re.compile(r"::test_(set_if(eq|ne)|delex(?!_ifdeq))_")
# Where a client connects that is told nothing.
DEFAULT_PORT = 6379
# Keys that one SCAN looks at and one UNLINK deletes.
BATCH = 1000
# Characters of a reason.
WHY_MAX = 300


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--outcomes", required=True, type=Path, help="where outcomes are written")


class Flotilla:
    def __init__(self, url: str, outcomes: Path) -> None:
        self.url = url
        self.outcomes = outcomes.open("w")
        self.current: dict[str, str] = {}

    def empty(self) -> bool:
        """Deletes all keys, by a connection of its own: that of the test may be in any state."""
        with redis.Redis.from_url(self.url) as client:
            keys = list(client.scan_iter(count=BATCH))
            for start in range(0, len(keys), BATCH):
                client.unlink(*keys[start : start + BATCH])
        return True

    @contextmanager
    def default_port(self) -> Iterator[None]:
        port = urlsplit(self.url).port
        connect = socket.socket.connect

        def redirected(one: socket.socket, address: Any) -> None:
            if isinstance(address, tuple) and address[1] == DEFAULT_PORT:
                address = (address[0], port, *address[2:])
            connect(one, address)

        with mock.patch.object(socket.socket, "connect", redirected):
            yield

    @pytest.hookimpl(wrapper=True)
    def pytest_runtest_protocol(self) -> Generator[None, Any, Any]:
        with self.default_port():
            return (yield)

    @contextmanager
    def fixtures(self) -> Iterator[None]:
        def flush(_client: redis.Redis, *_args: Any, **_options: Any) -> bool:
            return self.empty()

        async def flush_async(_client: redis.asyncio.Redis, *_args: Any, **_options: Any) -> bool:
            return self.empty()

        sync = mock.patch.multiple(redis.Redis, flushdb=flush, flushall=flush)
        later = mock.patch.multiple(redis.asyncio.Redis, flushdb=flush_async, flushall=flush_async)
        with sync, later:
            yield

    def pytest_collection_modifyitems(self, items: list[pytest.Item]) -> None:
        for item in items:
            if LATER.search(item.nodeid):
                item.own_markers = [mark for mark in item.own_markers if mark.name != "skipif"]

    @pytest.hookimpl(wrapper=True)
    def pytest_runtest_setup(self) -> Generator[None, Any, Any]:
        with self.fixtures():
            return (yield)

    @pytest.hookimpl(wrapper=True)
    def pytest_runtest_teardown(self) -> Generator[None, Any, Any]:
        with self.fixtures():
            return (yield)

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        # Set up, called, torn down: the first that is not passed tells.
        if report.when == "setup":
            self.current = {"test": report.nodeid, "outcome": "passed", "why": ""}
        if self.current["outcome"] == "passed" and not report.passed:
            self.current["outcome"] = report.outcome
            self.current["why"] = why(report)
        if report.when == "teardown":
            print(json.dumps(self.current), file=self.outcomes, flush=True)


def why(report: pytest.TestReport) -> str:
    """One line."""
    if isinstance(report.longrepr, tuple):  # file, line and reason of a skip
        text = report.longrepr[2].removeprefix("Skipped: ")
    elif hasattr(report, "wasxfail"):
        text = f"expected to fail by the suite: {report.wasxfail}"
    else:
        crash = getattr(report.longrepr, "reprcrash", None)
        text = crash.message if crash else str(report.longrepr)
    return " ".join(text.split())[:WHY_MAX]


def pytest_configure(config: pytest.Config) -> None:
    flotilla = Flotilla(config.getoption("--redis-url"), config.getoption("--outcomes"))
    config.pluginmanager.register(flotilla, "flotilla")
