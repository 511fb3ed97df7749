"""The client room: DIS calls over a Transport.

api       `Transport`: what carries a request to an endpoint; `StreamingTransport`: and an answer that goes on
http      the transport for real endpoints (aiohttp)
client    `Client`: life, attempts, statistics
streams   records   cursors   apps   checkpoints   groups   policies   dumps   metrics   tags    the calls, a module
          per resource
notices   for consumers: which partitions have something new, told as it happens
credentials   what requests carry: `AccessKey`, `Token`, `Password`; getting and renewing it
retry     what is tried again, and when*
endpoint  what an endpoint may look like*
config    `ClientConfig`

* decides only. Producer and consumer stand on this room; it knows neither them nor the server.
"""

from .api import Transport
from .client import Client, ClientStats
from .config import ClientConfig
from .credentials import AccessKey, Credentials, Password, Provider, Token
from .cursors import Cursors
from .http import HttpTransport
from .records import Records
from .streams import Streams

__all__ = [
    "AccessKey",
    "Client",
    "ClientConfig",
    "ClientStats",
    "Credentials",
    "Cursors",
    "HttpTransport",
    "Password",
    "Provider",
    "Records",
    "Streams",
    "Token",
    "Transport",
]
