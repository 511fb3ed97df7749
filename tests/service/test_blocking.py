"""The blocking client: the calls of the async one, in one background thread that always ends cleanly."""

from __future__ import annotations

import inspect
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from blocking_world import run

import disstream
from disstream import blocking
from disstream.blocking.resources import Resource
from disstream.errors import ClosedError, ConcurrencyError, ConfigError, ConflictError, NotFoundError, TransportError
from disstream.producer import ConvertingProducer
from disstream.server import Server


@pytest.fixture
def dis(disstream_server: Server) -> Iterator[blocking.DisClient]:
    with blocking.connect(disstream_server.url, project_id="demo") as client:
        yield client


def public(of: object) -> dict[str, Any]:
    return {name: value for name, value in inspect.getmembers(of) if not name.startswith("_")}


def arguments(call: Callable[..., object]) -> list[inspect.Parameter]:
    return [p for p in inspect.signature(call).parameters.values() if p.name != "self"]


def test_every_resource_has_every_call() -> None:
    """What the async client offers under a resource, the blocking one offers too: same names, arguments and texts."""
    plain = disstream.connect("http://localhost", project_id="demo")
    bridged = blocking.connect("http://localhost", project_id="demo")
    found = {name: value for name, value in public(bridged).items() if isinstance(value, Resource)}
    assert set(found) == {name for name, value in public(plain).items() if hasattr(value, "_client")} - ONLY_ASYNC
    for name, resource in found.items():
        calls = {what: call for what, call in public(getattr(plain, name)).items() if callable(call)}
        assert set(calls) == {what for what, call in public(resource).items() if callable(call)}, name
        for what, call in calls.items():
            assert arguments(getattr(type(resource), what)) == arguments(call)
            assert getattr(resource, what).__doc__ == call.__doc__


# Below the calls: for the rooms that stand on it.
ONLY_ASYNC = {"transport", "config", "project_id", "call", "stream", "can_stream", "notices", "twin"}


@pytest.mark.parametrize(
    ("plain", "bridged"),
    [
        (disstream.DisClient, blocking.DisClient),
        (ConvertingProducer, blocking.Producer),
        (disstream.Consumer, blocking.Consumer),
    ],
)
def test_every_method_has_its_counterpart(plain: type, bridged: type) -> None:
    """Client, producer and consumer have the methods of the async ones, with the same arguments, and no others."""
    calls = public(plain)
    for what in ONLY_ASYNC:
        calls.pop(what, None)
    extra = {"end", "forked"}  # for the client that closes them
    assert set(calls) == set(public(bridged)) - extra
    for what, call in calls.items():
        assert arguments(getattr(bridged, what)) == arguments(call), what
    assert arguments(blocking.connect) == arguments(disstream.connect)


def test_calls_wait_and_lists_are_iterators(dis: blocking.DisClient) -> None:
    """A stream is made, waited for, listed over several pages, described and deleted; errors keep their types."""
    for name in ("orders", "clicks", "visits"):
        dis.streams.create(name, partitions=2)
    info = dis.streams.wait_running("orders")
    assert info.writable_partition_count == 2
    assert sorted(stream.name for stream in dis.streams.list(page_size=1)) == ["clicks", "orders", "visits"]
    with pytest.raises(ConflictError):
        dis.streams.create("orders", partitions=2)
    dis.streams.delete("orders")
    with pytest.raises(NotFoundError):
        dis.streams.describe("orders")
    with pytest.raises(ConfigError, match="partitions=0"):
        dis.streams.create("none", partitions=0)
    with pytest.raises(TypeError, match="partitons"):
        dis.streams.create("none", partitons=1)  # type: ignore[call-arg]


def test_records_without_a_producer(dis: blocking.DisClient) -> None:
    """put, a cursor and get go through the bridge."""
    dis.streams.create("orders", partitions=1)
    results = dis.records.put("orders", [disstream.NewRecord(b"x", key="k")]).raise_for_failed()
    assert results[0].sequence_number == 0
    page = dis.records.get(dis.cursors.get("orders", "shardId-0000000000", "TRIM_HORIZON"))
    assert [record.data for record in page.records] == [b"x"]
    assert dis.stats().requests == 4


def test_the_async_library_does_not_load_it() -> None:
    """`import disstream` leaves disstream.blocking alone: who writes services pays nothing for scripts."""
    code = "import sys, disstream; print([m for m in sys.modules if m.startswith('disstream.blocking')])"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout == "[]\n"


def test_a_closed_client_refuses(disstream_server: Server) -> None:
    """Before start and after close every call raises ClosedError; closing twice is fine, starting twice is not."""
    dis = blocking.connect(disstream_server.url, project_id="demo")
    with pytest.raises(ClosedError, match="not started"):
        next(dis.streams.list())
    producer = dis.producer("orders")
    with pytest.raises(ClosedError, match="not started"):
        producer.send(b"x")
    dis.close()
    with dis:
        pass
    dis.close()
    dis.abort()
    for call in (dis.streams.list().__next__, producer.start, producer.flush, dis.start):
        with pytest.raises(ClosedError, match=r"closed|already"):
            call()
    producer.close()


def test_the_thread_ends_with_the_client(disstream_server: Server) -> None:
    """One thread while it is open, none afterwards, and what a failing block raises is what the caller sees."""
    before = set(threading.enumerate())
    with pytest.raises(ZeroDivisionError), blocking.connect(disstream_server.url, project_id="demo") as dis:  # noqa: PT012
        (thread,) = set(threading.enumerate()) - before
        assert thread.daemon
        next(dis.streams.list(), None)
        raise ZeroDivisionError
    assert set(threading.enumerate()) == before


def test_a_call_cut_by_closing(disstream_server: Server) -> None:
    """A thread that waits in a call of a client that is closed gets an error, at once."""
    ended: list[BaseException] = []

    def wait(dis: blocking.DisClient, asked: threading.Event) -> None:
        try:
            asked.set()
            dis.streams.wait_running("never", timeout_s=60)
        except disstream.DisError as error:
            ended.append(error)

    asked = threading.Event()
    with blocking.connect(disstream_server.url, project_id="demo") as dis:
        thread = threading.Thread(target=wait, args=(dis, asked))
        thread.start()
        asked.wait()
    thread.join(10)
    assert isinstance(ended[0], ClosedError)


def test_a_call_from_its_own_thread_is_refused(disstream_server: Server) -> None:
    """A blocking call made in the loop's thread would wait for itself: it raises instead."""
    told: list[BaseException] = []

    async def credentials() -> None:
        try:
            client.streams.describe("orders")
        except BaseException as error:
            told.append(error)

    client = blocking.connect(disstream_server.url, project_id="demo", credentials=credentials)
    with client:
        next(client.streams.list(), None)
    assert isinstance(told[0], ConcurrencyError)


def test_two_clients_in_two_threads(disstream_server: Server) -> None:
    """Each thread with a client of its own: neither sees the other's, or its end."""
    problems: list[BaseException] = []
    meet = threading.Barrier(2, timeout=20)

    def work(name: str) -> None:
        try:
            with blocking.connect(disstream_server.url, project_id="demo") as dis:
                dis.streams.create(name, partitions=1)
                meet.wait()
                with dis.producer(name) as producer:
                    for i in range(100):
                        producer.send(f"{name} {i}", key="k")
                with dis.consumer(name) as consumer:
                    assert [next(consumer).text() for _ in range(100)] == [f"{name} {i}" for i in range(100)]
        except BaseException as error:
            problems.append(error)
            meet.abort()

    threads = [threading.Thread(target=work, args=(name,)) for name in ("a", "b")]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(30)
    assert not problems


def test_ctrl_c_ends_any_wait(disstream_server: Server) -> None:
    """An interrupt in a call that would not end is a KeyboardInterrupt there; what follows works, the exit too."""
    done = run(
        disstream_server,
        """
with disstream.blocking.connect(url, project_id="demo") as dis:
    dis.streams.create("orders", partitions=1)
    with dis.producer("orders") as producer, dis.consumer("orders") as consumer:
        for wait in (consumer.__next__, consumer.fetch, lambda: dis.streams.wait_running("never", timeout_s=1e6)):
            try:
                threading.Timer(0.1, interrupt).start()
                wait()
            except KeyboardInterrupt:
                print("interrupted")
        producer.send_and_wait(b"x", key="k")
        print(next(consumer).data)
        threading.Timer(0.1, interrupt).start()
        consumer.fetch()
""",
    )
    assert done.stdout.splitlines() == ["interrupted"] * 3 + ["b'x'"]
    assert done.stderr.splitlines()[-1] == "KeyboardInterrupt"


def test_an_exit_without_close(disstream_server: Server) -> None:
    """A program that forgets to close ends at once, and what it sent is stored."""
    done = run(
        disstream_server,
        """
dis = disstream.blocking.connect(url, project_id="demo").start()
dis.streams.create("orders", partitions=1)
producer = dis.producer("orders").start()
producer.send(b"x", key="k")
consumer = dis.consumer("orders").start()
""",
    )
    assert (done.returncode, done.stderr) == (0, "")
    with (
        blocking.connect(disstream_server.url, project_id="demo") as dis,
        dis.consumer("orders") as consumer,
    ):
        assert next(consumer).data == b"x"


def test_an_exit_without_close_or_service(disstream_server: Server) -> None:
    """Where the service does not answer any more, such a program ends all the same, and says what it gave up."""
    done = run(
        disstream_server,
        """
import asyncio
from disstream.client import ClientConfig, HttpTransport

class Dead(HttpTransport):
    async def exchange(self, request):
        if request.target.endswith("/records"):
            await asyncio.sleep(1e6)
        return await super().exchange(request)

disstream.blocking.client.EXIT_GRACE_S = 0.2
dis = disstream.blocking.connect(transport=Dead(url, ClientConfig()), project_id="demo").start()
dis.streams.create("orders", partitions=1)
producer = dis.producer("orders").start()
producer.send(b"x", key="k")
""",
    )
    assert done.returncode == 0
    assert "not closed before the interpreter ended" in done.stderr
    assert "unknown=1" in done.stderr


@pytest.mark.skipif(sys.platform == "win32", reason="there is no fork")
def test_a_fork_is_refused_in_the_child(disstream_server: Server) -> None:
    """After a fork the child gets ClosedError from everything, also from `send`; the parent goes on."""
    done = run(
        disstream_server,
        """
import warnings
warnings.simplefilter("ignore", DeprecationWarning)  # that of forking with threads: it is what happens here
with disstream.blocking.connect(url, project_id="demo") as dis:
    dis.streams.create("orders", partitions=1)
    with dis.producer("orders") as producer, dis.consumer("orders") as consumer:
        delivery = producer.send(b"x", key="k")
        delivery.result()
        pid = os.fork()
        if not pid:
            try:
                for call in (lambda: producer.send(b"y"), lambda: next(consumer), lambda: dis.streams.delete("orders")):
                    try:
                        call()
                    except disstream.ClosedError as error:
                        print("child:", error, flush=True)
                with disstream.blocking.connect(url, project_id="demo") as own, own.producer("orders") as sender:
                    sender.send_and_wait(b"from the child", key="k")
            finally:
                os._exit(0)
        os.waitpid(pid, 0)
        producer.send_and_wait(b"z", key="k")
        print([record.data for record in (next(consumer), next(consumer), next(consumer))])
""",
    )
    assert done.stderr == ""
    told, found = done.stdout.splitlines()[:3], done.stdout.splitlines()[3:]
    assert len(told) == 3
    assert all("connect again in the child" in line for line in told)
    assert found == ["[b'x', b'from the child', b'z']"]


def test_no_service() -> None:
    """An endpoint where nobody listens raises TransportError from calls, and closes cleanly."""
    config = disstream.ClientConfig(attempts=1)
    with (
        blocking.connect("http://127.0.0.1:9", project_id="demo", config=config) as dis,
        pytest.raises(TransportError),
    ):
        dis.producer("orders").start()
