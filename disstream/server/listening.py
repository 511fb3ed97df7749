"""The port of a server: its address, its socket, its certificate."""

from __future__ import annotations

import asyncio
import errno
import ipaddress
import socket
import ssl

from ..errors import ConfigError, DisError
from .config import ServerConfig

HANDSHAKE_S = 10.0
"""Of TLS; until it is done a connection does not count."""


async def bound(config: ServerConfig) -> tuple[socket.socket, str]:
    """A listening socket, and the URL of the server behind it. Raises DisError, ConfigError."""
    host = await _resolve(config.host)
    # Bound here, because asyncio leaks a socket of its own making if it is cancelled on the way.
    listener = _bind(host, config.port)
    scheme = "http" if config.tls_certificate is None else "https"
    port = listener.getsockname()[1]
    return listener, f"{scheme}://[{host}]:{port}" if ":" in host else f"{scheme}://{host}:{port}"


def secure(config: ServerConfig) -> ssl.SSLContext | None:
    """What speaks TLS, if the configuration wants that. Raises ConfigError."""
    if config.tls_certificate is None:
        return None
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    try:
        # A password asked for on the terminal would hang a server.
        context.load_cert_chain(config.tls_certificate, config.tls_key, password=lambda: "")
    except (OSError, ValueError) as exc:
        key = config.tls_key or config.tls_certificate
        raise ConfigError(
            f"certificate {config.tls_certificate} with key {key} cannot be used ({exc}): "
            "give files in PEM, the key without a passphrase"
        ) from exc
    return context


def _bind(host: str, port: int) -> socket.socket:
    try:
        return socket.create_server(
            (host, port),
            family=socket.AF_INET6 if ":" in host else socket.AF_INET,
            backlog=1024,
            dualstack_ipv6=host == "::" and socket.has_dualstack_ipv6(),
        )
    except OSError as exc:
        why = "it is in use" if exc.errno == errno.EADDRINUSE else exc.strerror or exc
        raise DisError(f"cannot listen on {host}:{port}: {why}; give another port, or 0 for a free one") from exc


async def _resolve(host: str) -> str:
    """The address to bind. Raises ConfigError if the name localhost leads elsewhere."""
    if host != "localhost":
        return host
    found = await asyncio.get_running_loop().getaddrinfo(host, None, type=socket.SOCK_STREAM)
    addresses = [str(info[4][0]) for info in found]
    for address in addresses:
        if not ipaddress.ip_address(address).is_loopback:
            raise ConfigError(f"localhost resolves to {address}, which is not this machine: give host='127.0.0.1'")
    # One address only, or port 0 would become two ports; IPv4 first, as every client tries it.
    return next((a for a in addresses if ":" not in a), addresses[0])
