"""The server: an endpoint that clients of DIS cannot tell from the service.

config      ServerConfig: every setting, with the reason of its default
server      Server: engine + app + port + background work, one supervisor task
compression bodies that arrive compressed, within a budget
listening   the port: its address, its socket, its certificate
edge        aiohttp requests become plain ones, bounded; nobody else knows aiohttp but
answers     whole answers on their way out
fronts      several processes before this one: started, watched, given connections; their calls answered
front       such a process: edge, and in the place of the app a line to it
entrance    where their connections come in, and are dealt out
app         App.handle: routing, projects, request ids, errors as answers
call        one request, matched to its operation
streams     handlers of the stream calls
records     handlers of put, get and cursors: the hot path
notices     answers that go on, and tell which partitions have grown
pushing     the records that go with them
policies    handlers of stream policies
apps        handlers of the app calls
checkpoints handlers of the checkpoint calls
progress    checkpoints in the catalog: found, and forgotten with their stream
dumps       handlers of the dump task calls
metrics     handlers of the metrics calls; stores what was counted
tags        handlers of the tag calls
groups      handlers of the group protocol; loads and stores groups
iam         handlers of the two calls of IAM: tokens and projects
auth        who sent a request, and whether it may
settings    the configuration file
openapi     the description of the API for machines, a module per resource
directory   the streams of all projects: found, made, changed, deleted; claims on quotas
turns       one at a time for each of several things
partitions  partitions as they are told to clients
scaling     changes of the number of partitions, step by step
autoscaling looks once a minute which streams should scale themselves
retention   expiry in the background
inspection  a data directory checked and measured, for `disstream data`

Pure, deciding only:

frames      what goes over the lines between server and fronts
heartbeat   whether a front still answers
relay       bodies and answers in forms that cost the server less than its fronts
group       the state machine of one group
users       projects, users and access keys, as configured
rights      operation -> IAM action, and what patterns of actions allow
tokens      what a user gets for a password; how often one can be guessed at
toml        lines of the configuration file
documents   catalog keys and the stream document
audit       whether the documents of a catalog fit together, and to the log
creation    what a new stream, or an update, must satisfy
schemas     which data schemas there may be
reshape     what a stream looks like after its partitions changed
autoscale   when a stream scales itself
destinations what a dump task's destination must satisfy
dumping     a dump task as it is kept and told
quotas      what the streams of a project may take together
flow        how fast a partition may be written and read
blacklist   which addresses fail too often
meter       what is counted of the traffic, minute by minute
tagging     what tags may be, and which streams a question about them means
layout      where records go
recent      what was asked for lately, within a weight
admission   what is taken in, and what becomes of each record of a put (the suffix rule)
sessions    what becomes of the records of a put that may be a repetition

Stands on an engine and the wire; never imports client, producer or consumer.
"""

from .app import App
from .config import ServerConfig
from .server import Server, ServerStats
from .settings import read_config
from .users import Project, User, UserKey, Users

__all__ = ["App", "Project", "Server", "ServerConfig", "ServerStats", "User", "UserKey", "Users", "read_config"]
