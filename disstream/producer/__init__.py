"""Producing: records in, one truthful end for each.

producer      the public object: accepts records, starts and ends the tasks
bodies*       the form in which a request travels
sending       the tasks: they send what the core decides, and follow the layout of the stream
stats         ProducerStats: what a producer tells about itself
config        ProducerConfig
delivery      what callers hold: Delivery, BatchDelivery, Receipts
shares*       the records of one send_many call, shared out to the lanes they go to
conversion    the producer that serialises and traces records before it accepts them
payload       from what a caller gives to what the wire can carry
budget        the byte budget: who may enter, in which order, and what one partition may hold of it
accumulator*  the core: batches per lane; what concerns all that waits: expiry, a new layout
layout*       the lanes there are now, and whether the service places records as we do
picking*      what goes into the next request
answers*      what an answer says of the records of a request
ends*         the ends of records: counted, told, their room given back
shipment*     what travels: parts of batches, and the parts of one request
numbers*      the numbers that records bear in a session
lanes*        lanes, groups, and the way from a key to its lane
packing*      from records as they were sent to records of the service: aggregated, enveloped, compressed
spill         failed records on their way to the spill file
spillfile     that file: its lines, who may write it, how it is sent again
outcome*      the four ends of a record, and the batch that deliveries point into
pacing*       how fast a partition is sent records, and how long to wait before the next attempt
traffic*      what is known of each partition: rates, hot keys, pace; and what follows for its users
sketch*       which keys make up most of the traffic, in bounded memory

`*` = pure. Stands on `client` (one call: records.put_encoded). Knows nothing of HTTP or of the server.
"""

from .config import Envelope, Order, ProducerConfig
from .conversion import ConvertingProducer, json, make_producer
from .delivery import BatchDelivery, Delivery, Receipts
from .outcome import Receipt
from .pacing import Pace
from .payload import Payload
from .producer import Producer
from .spillfile import SpilledRecord, SpillEnd, read_spill
from .stats import ProducerStats
from .traffic import HotKey, PartitionStats, ScaleAdvice

__all__ = [
    "BatchDelivery",
    "ConvertingProducer",
    "Delivery",
    "Envelope",
    "HotKey",
    "Order",
    "Pace",
    "PartitionStats",
    "Payload",
    "Producer",
    "ProducerConfig",
    "ProducerStats",
    "Receipt",
    "Receipts",
    "ScaleAdvice",
    "SpillEnd",
    "SpilledRecord",
    "json",
    "make_producer",
    "read_spill",
]
