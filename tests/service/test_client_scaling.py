"""The client changes streams, waits for it, and understands what other endpoints say of theirs."""

from __future__ import annotations

import json

import pytest
from app_world import AppWorld, simulate

from disstream.errors import ApiError, ConfigError, NotFoundError, WaitTimeout
from disstream.model import AutoScale, LayoutBound, NewRecord, Scaling
from disstream.wire.streams import decode_describe


def test_scaling() -> None:
    """A stream is scaled and waited for; its history and its bounds are typed."""

    async def test(world: AppWorld) -> None:
        dis = world.dis
        await dis.streams.create("s", partitions=2)
        await dis.records.put("s", [NewRecord(b"x", partition_id="0")])
        await dis.streams.scale("s", 3)
        info = await dis.streams.wait_running("s", partitions=3)
        assert [p.bounds for p in info.partitions] == [(LayoutBound(1, 1),), (LayoutBound(1, 0),), (LayoutBound(1, 0),)]
        (change,) = info.scalings
        assert change == Scaling(create_time=change.create_time, source=2, target=3, automatic=False, result_code=0)
        with pytest.raises(WaitTimeout, match="RUNNING with 3 of 4 partitions"):
            await dis.streams.wait_running("s", partitions=4, timeout_s=10)
        for bad in (0, -1, "3", True, 2.0):
            with pytest.raises(ConfigError, match="partitions="):
                await dis.streams.scale("s", bad)  # type: ignore[arg-type]
        with pytest.raises(NotFoundError):
            await dis.streams.scale("t", 3)

    simulate(test)


def test_updates() -> None:
    """What is given is changed, and only that; nothing given, or bounds that are none, are mistakes before anything."""

    async def test(world: AppWorld) -> None:
        streams = world.dis.streams
        await streams.create("s", partitions=1, data_type="JSON", auto_scale=AutoScale(1, 4))
        assert (await streams.describe("s")).auto_scale == AutoScale(1, 4)
        assert [s.auto_scale async for s in streams.list()] == [AutoScale(1, 4)]
        await streams.update("s", retention_h=72, data_schema='"string"')
        info = await streams.describe("s")
        assert (info.retention_h, info.data_schema, info.auto_scale) == (72, '"string"', AutoScale(1, 4))
        await streams.update("s", auto_scale=AutoScale(2, 3))
        assert (await streams.describe("s")).auto_scale == AutoScale(2, 3)
        await streams.update("s", auto_scale=False, data_type="CSV")
        info = await streams.describe("s")
        assert (info.auto_scale, info.data_type, info.retention_h) == (None, "CSV", 72)
        with pytest.raises(ConfigError, match="nothing to update"):
            await streams.update("s")
        for bounds in (AutoScale(3, 2), AutoScale(0, 2), True, 4, (1, 2, 3)):
            with pytest.raises(ConfigError, match="auto_scale="):
                await streams.update("s", auto_scale=bounds)  # type: ignore[arg-type]
        with pytest.raises(ApiError, match=r"DIS\.4360"):
            await streams.update("s", data_schema="{}")

    simulate(test)


def test_what_others_say() -> None:
    """Numbers as text, words for codes, nulls and keys left out, as they come from the service, are understood."""
    body = {
        "stream_name": "s",
        "last_modified_time": "1599050091026",
        "auto_scale_enabled": None,
        "auto_scale_min_partition_count": 0,
        "update_partition_counts": [
            {"create_timestamp": "1599050091026", "src_partition_count": 1, "target_partition_count": 2},
            {"result_code": "200", "result_msg": "done", "auto_scale": True},
            {"result_code": "OK", "auto_scale": None},
        ],
        "partitions": [{"partition_id": "shardId-0000000000", "status": "EXPIRED", "sequence_number_range": None}],
    }
    info, more = decode_describe(json.dumps(body).encode())
    assert not more
    assert (info.last_modified_time, info.auto_scale) == (1599050091026, None)
    assert [(s.source, s.target, s.result_code, s.automatic) for s in info.scalings] == [
        (1, 2, None, False),
        (0, 0, 200, True),
        (0, 0, None, False),
    ]
    assert info.partitions[0].sequence_range is None
    assert info.partitions[0].bounds == ()
    assert decode_describe(b'{"stream_name": "s", "update_partition_counts": null}')[0].scalings == ()
