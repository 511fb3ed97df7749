"""The library for scripts and threads: the async one behind calls that wait.

    with disstream.blocking.connect("http://127.0.0.1:8080", project_id="demo") as dis:
        with dis.producer("orders") as producer: ...

portal      the thread with the loop in which everything lives; how other threads call into it
life        what producer and consumer have in common: start, close, abort
client      `connect` and `DisClient`
resources   `dis.streams`, `dis.records`, ...: the calls of the API, bridged one by one
staging     how a record gets from a thread into the loop without a round trip
producer    `Producer`
delivery    `Delivery` and `BatchDelivery`: what `send` and `send_many` return
consumer    `Consumer`

What a call means, raises and promises is told by its counterpart of the same name in `disstream`; what differs is told
here. Everything may be shared between threads, but one thread at a time reads from a consumer. The room stands on the
roof: nothing imports it, `import disstream` neither.
"""

from .client import DisClient, connect
from .consumer import Consumer
from .delivery import BatchDelivery, Delivery
from .producer import Producer

__all__ = ["BatchDelivery", "Consumer", "Delivery", "DisClient", "Producer", "connect"]
