"""What an endpoint may look like."""

from __future__ import annotations

import ipaddress
from urllib.parse import urlsplit

from ..errors import ConfigError


def check_endpoint(endpoint: str) -> str:
    """The endpoint as scheme://host[:port]. Raises ConfigError that names what is wrong.

    A path is refused, not dropped: targets are signed and sent as they are, so a gateway's prefix could not be kept
    without the service seeing another path than the one that was signed.
    """
    example = "write it like https://dis.cn-north-1.myhuaweicloud.com or http://127.0.0.1:8080"
    try:
        parts = urlsplit(endpoint)
        port = parts.port
    except ValueError as exc:
        raise ConfigError(f"endpoint {endpoint!r} is not a URL ({exc}): {example}") from exc
    if parts.scheme not in ("http", "https") or not parts.hostname:
        raise ConfigError(f"endpoint {endpoint!r} needs http:// or https:// and a host: {example}")
    if any(c.isspace() or not c.isprintable() for c in endpoint) or port == 0:
        raise ConfigError(f"endpoint {endpoint!r} holds blanks, control characters or port 0: {example}")
    if parts.username is not None or parts.password is not None:
        raise ConfigError("the endpoint holds a user name or password: credentials do not belong into it")
    if parts.path not in ("", "/") or parts.query or parts.fragment:
        raise ConfigError(
            f"endpoint {endpoint!r} has something behind the host: DIS paths start at the root, so a prefix cannot be "
            f"honoured; {example}"
        )
    return f"{parts.scheme}://{parts.netloc}"


def is_readable_by_others(endpoint: str) -> bool:
    """Whether what is sent to `endpoint` crosses a network without TLS."""
    parts = urlsplit(endpoint)
    host = parts.hostname or ""
    if parts.scheme != "http" or host == "localhost" or host.endswith(".localhost"):
        return False
    try:
        return not ipaddress.ip_address(host).is_loopback
    except ValueError:
        return True
