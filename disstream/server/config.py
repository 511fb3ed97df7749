"""What a server can be told, with the reason of each default."""

from __future__ import annotations

import ipaddress
import socket
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from ..errors import ConfigError
from .users import Users

MIB = 1_048_576

RECORD_BYTES = 100
"""What a record on its way costs besides payload and key: without it empty records would be free."""

MAX_SECONDS = 315_360_000
"""Of any duration: ends of tokens are dates, and nothing is sent as infinity."""

MAX_WORKERS = 64
"""Beyond some eight the core has no time left to feed them (docs/decisions/0026-workers.md)."""

MAX_SCALINGS = 50
"""Of a stream that are remembered: ten hours of the service's most. More in an hour could not be counted."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ServerConfig:
    """Everything a `Server` needs to know. Raises ConfigError naming the value and the remedy."""

    data_dir: Path | str | None = "disstream-data"  # durable unless memory (None) is asked for by name
    host: str = "127.0.0.1"  # an address or 'localhost'; one that others can reach takes users, or insecure_bind
    port: int = 8080  # 0: a free one, told by Server.url
    insecure_bind: bool = False  # True: whoever reaches the port may do anything, and that is what I want
    users: Users | None = None  # None: nobody has to sign in, whatever credentials are sent
    region: str | None = None  # what the scope of a signature must name; None: any
    token_lifetime_s: float = 86_400.0  # the service's own
    tls_certificate: Path | str | None = None  # with it, and its chain, in PEM, the server speaks HTTPS
    tls_key: Path | str | None = None  # None: the key stands in the file of the certificate
    workers: int = 1  # more: so many processes take requests in for this one, which keeps all state (fronts.py)
    durability: Literal["fsync", "relaxed"] = "fsync"  # an answered put is on disk; "relaxed" may lose the last moments
    sync_interval_s: float = 1.0  # of "relaxed": how much a power failure may take
    map_size_bytes: int = 256 * 1024 * MIB  # what the directory may hold, reserved as addresses only
    ballast_bytes: int = 8 * MIB  # room of the disk kept for deletions, or a full one could free nothing; 0: none

    max_body_bytes: int = 12 * MIB  # what the service's signing allows; 5 MiB of records as base64 fit
    max_request_bytes: int = 5 * MIB  # payload of one put, the service's own limit
    max_record_bytes: int = 1 * MIB  # payload of one record, the service's own limit
    max_request_records: int = 100_000  # official clients send several thousand; this only bounds the work of one put
    max_partition_key_bytes: int = 65_536  # far beyond any use; without it a key could outweigh every page
    max_pending_bytes: int = 64 * MIB  # accepted but not yet durable (RECORD_BYTES included): a second of a fast disk
    max_buffered_bytes: int = 256 * MIB  # bodies and answers of all requests under way together
    max_connections: int = 10_000  # each costs 5 KB even if it says nothing; more are closed at once
    max_notices: int = 1_000  # answers that go on (wire/notices.py); one user of a project may have half of them
    max_partitions: int = 1_000  # of one stream; twenty times the service's quota for an account
    default_fetch_bytes: int = 2 * MIB  # of a get that names no size; what official clients take for the ceiling
    max_fetch_bytes: int = 8 * MIB  # of any get: what one answer may cost in memory

    # What the service sells by the piece. None: as much as the machine bears.
    # A rate need not reach the largest record: that passes at once, and what follows waits longer (flow.py).
    common_in_bytes_per_s: int | None = None  # payload of one COMMON partition, and so on
    common_in_records_per_s: int | None = None
    common_out_bytes_per_s: int | None = None
    advanced_in_bytes_per_s: int | None = None
    advanced_in_records_per_s: int | None = None
    advanced_out_bytes_per_s: int | None = None
    max_common_partitions: int | None = None  # of all streams of a project together
    max_advanced_partitions: int | None = None
    max_streams: int | None = None  # of a project
    max_apps: int | None = None  # of a project
    max_group_members: int | None = None  # of one app; never more than the thousand that dealing partitions bears
    max_dump_tasks: int | None = None  # of one stream
    max_tags: int = 100  # of one stream: they ride along with its document, which every call reads
    retention_bytes: int | None = None  # payload and keys of a stream that has no bound of its own
    max_scalings_per_hour: int | None = None  # of one stream
    scaling_pause_s: float | None = None  # after one that succeeded
    max_failures_per_minute: int | None = None  # of one address, whose requests are refused until the minute is over

    session_timeout_s: float = 30.0  # a silent group member is dropped after it; official members beat every 10 s
    join_delay_s: float = 3.0  # a newcomer to a group waits for others that start with it: one rebalance, not many

    idle_timeout_s: float = 75.0  # for the head of the next request; official clients keep idle ones for up to 60 s
    body_timeout_s: float = 60.0  # for a body to arrive once its head did: 12 MiB at 200 KB/s
    answer_timeout_s: float = 60.0  # for a client to take an answer: the largest page at 200 KB/s
    retention_interval_s: float = 60.0  # expired records stay readable for at most this much longer
    close_timeout_s: float = 10.0  # for requests under way when close() is called

    def __post_init__(self) -> None:
        if not (is_loopback(self.host) or self.users is not None or self.insecure_bind):
            raise ConfigError(
                f"host is {self.host}, which others can reach, and there are no users to tell apart: configure users, "
                "give a loopback address (127.0.0.1, ::1), or let everybody in with insecure_bind (--insecure-bind)"
            )
        if self.tls_key is not None and self.tls_certificate is None:
            raise ConfigError(f"tls_key is {self.tls_key} and tls_certificate is missing: give both")
        if not 0 <= self.port <= 65_535:
            raise ConfigError(f"port is {self.port}: give 0 (a free one) to 65535")
        if not 1 <= self.workers <= MAX_WORKERS:
            raise ConfigError(f"workers is {self.workers}: give 1 (no other processes) to {MAX_WORKERS}")
        if self.workers > 1 and not hasattr(socket, "send_fds"):
            raise ConfigError(
                f"workers is {self.workers}: this system cannot hand connections to other processes, so give 1; "
                "for more, run several servers, each with a data directory of its own"
            )
        if self.durability not in ("fsync", "relaxed"):
            raise ConfigError(f"durability is {self.durability!r}: give 'fsync' or 'relaxed'")
        for name in (
            "sync_interval_s",
            "max_body_bytes",
            "max_request_bytes",
            "max_record_bytes",
            "max_request_records",
            "max_partition_key_bytes",
            "max_connections",
            "max_notices",
            "max_partitions",
            "default_fetch_bytes",
            "common_in_bytes_per_s",
            "common_in_records_per_s",
            "common_out_bytes_per_s",
            "advanced_in_bytes_per_s",
            "advanced_in_records_per_s",
            "advanced_out_bytes_per_s",
            "max_common_partitions",
            "max_advanced_partitions",
            "max_streams",
            "max_apps",
            "max_group_members",
            "max_dump_tasks",
            "max_tags",
            "retention_bytes",
            "max_scalings_per_hour",
            "scaling_pause_s",
            "max_failures_per_minute",
            "session_timeout_s",
            "token_lifetime_s",
            "idle_timeout_s",
            "body_timeout_s",
            "answer_timeout_s",
            "retention_interval_s",
            "close_timeout_s",
        ):
            value = getattr(self, name)
            if value is None:
                continue
            if not value > 0:
                raise ConfigError(f"{name} is {value}: give more than 0")
            if name.endswith("_s") and value > MAX_SECONDS:
                raise ConfigError(f"{name} is {value}: give at most {MAX_SECONDS} (ten years)")
        if self.map_size_bytes < MIB:
            raise ConfigError(f"map_size_bytes is {self.map_size_bytes}: give at least {MIB}")
        if self.ballast_bytes < 0:
            raise ConfigError(f"ballast_bytes is {self.ballast_bytes}: give 0 (none) or more")
        if not 0 <= self.join_delay_s <= MAX_SECONDS:
            raise ConfigError(f"join_delay_s is {self.join_delay_s}: give 0 or more, at most {MAX_SECONDS}")
        if self.max_scalings_per_hour is not None and self.max_scalings_per_hour > MAX_SCALINGS:
            raise ConfigError(
                f"max_scalings_per_hour is {self.max_scalings_per_hour}: give at most {MAX_SCALINGS}, "
                "as many as a stream remembers, or no limit (None)"
            )
        heaviest = self.max_record_bytes + self.max_partition_key_bytes + RECORD_BYTES
        for name in ("max_pending_bytes", "max_fetch_bytes"):
            value = getattr(self, name)
            if value < heaviest:
                raise ConfigError(
                    f"{name} is {value}: give at least {heaviest} for one record and its key, "
                    "or a record could never pass"
                )
        if self.max_buffered_bytes < self.max_body_bytes:
            raise ConfigError(
                f"max_buffered_bytes is {self.max_buffered_bytes}: give at least max_body_bytes ({self.max_body_bytes})"
            )


SERVICE_LIMITS = {
    "common_in_bytes_per_s": MIB,
    "common_in_records_per_s": 1_000,
    "common_out_bytes_per_s": 2 * MIB,
    "advanced_in_bytes_per_s": 5 * MIB,
    "advanced_in_records_per_s": 2_000,
    "advanced_out_bytes_per_s": 10 * MIB,
    "max_common_partitions": 50,
    "max_advanced_partitions": 10,
    "max_dump_tasks": 5,
    "max_tags": 10,
    "max_scalings_per_hour": 5,
    "scaling_pause_s": 3_600.0,
    "max_fetch_bytes": 2 * MIB,  # the ceiling that clients of the service reckon with
}
"""Where the service is stricter than the defaults, which hold its other limits already."""


def is_loopback(host: str) -> bool:
    """False: others can reach it. Raises ConfigError unless it is an address or 'localhost'."""
    if host == "localhost":
        return True  # what it resolves to is checked when the server starts
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError as exc:
        raise ConfigError(
            f"host is {host!r}: give an address (127.0.0.1, ::1; 0.0.0.0 or :: for all there are) or 'localhost'"
        ) from exc
