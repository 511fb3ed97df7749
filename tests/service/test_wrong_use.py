"""Proves that the mistakes of newcomers are told in words, with the remedy, before anything happens."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from disstream import ConfigError, ConsumerConfig, Partition, ProducerConfig, connect
from disstream.door import DisClient
from disstream.wire.errors import decode_error
from disstream.wire.http import Response


@pytest.mark.parametrize(
    ("mistake", "told"),
    [
        (lambda dis: dis.producer("s", ConsumerConfig()), "config is a ConsumerConfig"),
        (lambda dis: dis.consumer("s", ProducerConfig()), "config is a ProducerConfig"),
        (lambda dis: connect(8080, project_id="demo"), "endpoint 8080 is no address"),  # type: ignore[arg-type]
        (lambda dis: connect("127.0.0.1:8080", project_id="demo"), "http"),
    ],
)
async def test_wrong_arguments(disstream_client: DisClient, mistake: Callable[[Any], object], told: str) -> None:
    """What is of the wrong kind is refused where it is given, with its value and what would be right."""
    with pytest.raises(ConfigError, match=told):
        mistake(disstream_client)


async def test_a_partition_by_its_id_alone(disstream_client: DisClient) -> None:
    """A consumer is asked about a Partition; an id alone is refused with the two ways to get one."""
    await disstream_client.streams.create("s", partitions=1)
    async with disstream_client.consumer("s") as consumer:
        for wrong in ("shardId-0000000000", 0, None):
            with pytest.raises(ConfigError, match=r"use record\.partition"):
                consumer.seek(wrong, "earliest")  # type: ignore[arg-type]
        assert consumer.position(Partition("s", "shardId-0000000000")) == 0


async def test_names_that_cannot_be_sent(disstream_client: DisClient) -> None:
    """A name with a lone surrogate is refused here; no request could carry it."""
    with pytest.raises(ConfigError, match="lone surrogates"):
        await disstream_client.streams.describe("\ud800")


def test_an_endpoint_that_is_not_dis() -> None:
    """An answer that is not one of DIS says so, and repeats only the beginning of somebody's web page."""
    error = decode_error(Response(status=404, body=b"<!DOCTYPE html>\n<title>Not here</title>" * 50))
    assert "is the endpoint right?" in str(error)
    assert len(str(error)) < 400
