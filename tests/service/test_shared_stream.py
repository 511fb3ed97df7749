"""Proves that a stream another account shares is written, read and committed by its id, as one's own is by its name."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest
from accounts import SECRETS, users

from disstream import AccessKey, AuthError, ConsumerConfig, DisClient, NewRecord, Record, ServiceGroup, Static, connect
from disstream.server import Server, ServerConfig
from disstream.wire.checkpoints import position


def client(server: Server, user: str, project: str) -> DisClient:
    ak = f"AK{user}"
    return connect(server.url, project_id=project, credentials=AccessKey(ak, SECRETS[ak]))


@pytest.fixture
async def server() -> AsyncIterator[Server]:
    config = ServerConfig(data_dir=None, port=0, users=users(), join_delay_s=0.0)
    async with Server(config) as server:
        yield server


async def share(server: Server, *actions: str) -> str:
    """Alice shares her stream `orders` with bob; its id."""
    async with client(server, "alice", "a1") as owner:
        await owner.streams.create("orders", partitions=2)
        for action in actions:
            await owner.policies.add("orders", "other.bob", action)
        return (await owner.streams.describe("orders")).stream_id


@pytest.mark.parametrize("coordination", [ServiceGroup(accelerate=True), Static()])
async def test_it_is_used_by_its_id(server: Server, coordination: ServiceGroup | Static) -> None:
    """Produced, consumed for an app of one's own, committed, and gone on with; records bear the id."""
    stream_id = await share(server, "putRecords", "getRecords", "getStreamInfo")
    async with client(server, "bob", "b1") as dis:
        async with dis.producer(stream_id) as producer:
            for number in range(20):
                await producer.send(b"%d" % number, key=str(number))
        config = ConsumerConfig(coordination=coordination, auto_commit_s=None)
        seen: list[Record] = []
        for half in (10, 20):
            async with dis.consumer(stream_id, config, app="mine") as consumer:
                while len(seen) < half:
                    seen += await consumer.fetch(max_records=half - len(seen))
                for record in seen:
                    consumer.record_done(record)
        for state in await dis.apps.state("mine", stream_id):
            assert state.checkpoint is None or position(state.checkpoint)[0] == state.latest
        assert sorted(int(record.data) for record in seen) == list(range(20))
        assert {record.stream for record in seen} == {stream_id}


async def test_what_is_not_allowed_is_named(server: Server) -> None:
    """Reading alone does not allow to write, nor to look at the stream."""
    stream_id = await share(server, "getRecords")
    async with client(server, "bob", "b1") as dis:
        with pytest.raises(AuthError, match="allows getStreamInfo"):
            await dis.streams.describe(stream_id)
        with pytest.raises(AuthError, match="allows putRecords"):
            await dis.records.put(stream_id, [NewRecord(b"x")])
