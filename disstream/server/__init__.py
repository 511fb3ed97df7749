"""The server: an endpoint that clients of DIS cannot tell from the service.

config      ServerConfig: every setting, with the reason of its default
server      Server: engine + app + port + background work, one supervisor task
edge        the only module that knows aiohttp: bounded bodies, plain requests
app         App.handle: routing, projects, request ids, errors as answers
call        one request, matched to its operation
streams     handlers of the stream calls
records     handlers of put, get and cursors: the hot path
directory   the streams of all projects: found, made, deleted
retention   expiry in the background

Pure, deciding only:

documents   catalog keys and the stream document
creation    what a new stream must satisfy
layout      where records go
admission   what is taken in, and what becomes of each record of a put (the suffix rule)

Stands on an engine and the wire; never imports client, producer or consumer.
"""

from .app import App
from .config import ServerConfig
from .server import Server

__all__ = ["App", "Server", "ServerConfig"]
