"""Checkpoints (API 5.3), as the service keeps them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

from ..errors import ApiError, ConfigError, NotFoundError
from ..model import MAX_HASH_KEY, Checkpoint
from ..wire import partitioning
from ..wire.checkpoints import (
    MAX_METADATA_CHARS,
    NOT_COMMITTED,
    checkpoint_query,
    decode_checkpoint,
    decode_dropped,
    encode_commit,
    encode_reset,
    sealed,
)

if TYPE_CHECKING:
    from .client import Client


class Checkpoints:
    """`client.checkpoints`. Numbers and metadata go as they are: `wire.checkpoints` tells what consumers make of them.

    Partition ids are taken in either spelling. `stream_id` is needed for a stream that another account shares, and
    keeps a call from reaching a stream that was created again under the name.
    """

    def __init__(self, client: Client) -> None:
        self._client = client

    async def commit(
        self,
        app: str,
        stream: str,
        partition_id: str,
        sequence_number: int,
        *,
        metadata: str = "",
        stream_id: str | None = None,
        member_id: str | None = None,
        generation: int | None = None,
    ) -> None:
        """Set the checkpoint of an app on a partition; number and metadata replace what was there.

        API 5.3.1. Any number up to the next one to be written is accepted; `metadata` has at most 1,000 characters.
        `member_id` and `generation` say that a member of the app's group commits: it is refused unless the partition
        is that member's in that generation. Raises ConfigError, NotFoundError (no such app, stream or partition),
        SequenceOutOfRange, StaleGeneration. Repeated after a lost answer: the same twice is the same.
        Cancellation: it may have been committed.
        """
        if not 0 <= sequence_number <= MAX_HASH_KEY:
            raise ConfigError(f"sequence_number={sequence_number!r} must be within 0 and {MAX_HASH_KEY}")
        if len(metadata) > MAX_METADATA_CHARS:
            raise ConfigError(f"metadata has {len(metadata)} characters, at most {MAX_METADATA_CHARS} can be kept")
        try:
            body = encode_commit(
                app,
                stream,
                _long(partition_id),
                Checkpoint(sequence_number, metadata),
                stream_id=stream_id,
                member_id=member_id,
                generation=generation,
            )
        except UnicodeEncodeError as exc:
            raise ConfigError(f"{exc.object!r:.80} cannot be sent: leave lone surrogates out") from exc
        await self._client.call("commit_checkpoint", body=body)

    async def reset(
        self,
        app: str,
        stream: str,
        following: Mapping[str, int],
        *,
        force: bool = False,
        stream_id: str | None = None,
    ) -> tuple[str, ...]:
        """Let an app read on at `following`: partition id -> sequence number of the record that it reads next.

        All of them are set or none, while the app's group has no member. `force` drops the members for it: what they
        finished and did not commit is refused from then on, and when they join again, by themselves, they begin at
        these places. Returns the ids of those that were dropped.

        Only disstream's server offers it (`"resets" in extensions`): others raise ApiError. Raises ConflictError
        (members are reading, and no `force`), ConfigError, NotFoundError, SequenceOutOfRange. Repeated after a lost
        answer: the same twice is the same. Cancellation: it may have been done.
        """
        places = {_long(partition): sealed(sequence, read=False) for partition, sequence in following.items()}
        if not places:
            raise ConfigError("following={}: name the partitions to be set")
        answer = await self._client.call(
            "reset_checkpoints",
            {"app_name": app, "stream_name": stream},
            body=encode_reset(places, stream_id=stream_id, force=force),
        )
        return decode_dropped(answer.body)

    async def get(self, app: str, stream: str, partition_id: str, *, stream_id: str | None = None) -> Checkpoint | None:
        """The checkpoint of an app on a partition. None: nothing was committed.

        API 5.3.2. Raises NotFoundError (no such app, stream or partition).
        """
        query = checkpoint_query(app, stream, _long(partition_id), stream_id=stream_id)
        try:
            answer = await self._client.call("get_checkpoint", query=query)
        except NotFoundError as exc:
            if exc.code == NOT_COMMITTED:
                return None
            raise
        return decode_checkpoint(answer.body)

    async def delete(
        self, app: str, stream: str, partition_id: str | None = None, *, stream_id: str | None = None
    ) -> None:
        """Forget the checkpoint of an app on a partition, or with None those on all partitions of the stream.

        API 5.3.3. Raises NotFoundError (also if there was none), except after an attempt whose answer was lost.
        """
        partition = None if partition_id is None else _long(partition_id)
        query = checkpoint_query(app, stream, partition, stream_id=stream_id)
        await self._client.call("delete_checkpoint", query=query)


def _long(partition_id: str) -> str:
    """The long spelling. Raises ConfigError."""
    try:
        return partitioning.partition_id(partitioning.partition_number(partition_id))
    except ApiError as exc:
        raise ConfigError(f"partition_id {partition_id!r} is neither like 'shardId-0000000000' nor a number") from exc
