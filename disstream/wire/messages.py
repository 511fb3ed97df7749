"""The protobuf messages of put and get, made with Google's library.

Only `protobuf.py` imports this, and only when the first body in protobuf is written or read: the library takes a tenth
of the time in which a server starts, and most never meet such a body.
"""

from __future__ import annotations

from typing import Any

from google.protobuf.descriptor_pb2 import FieldDescriptorProto as Field
from google.protobuf.descriptor_pb2 import FileDescriptorProto
from google.protobuf.descriptor_pool import DescriptorPool
from google.protobuf.message import DecodeError
from google.protobuf.message_factory import GetMessageClass

from .protobuf import NO_TIMESTAMP

__all__ = ["DecodeError", "GetRecordsResult", "PutRecordsRequest", "PutRecordsResult"]

_MESSAGES = {
    "PutRecordsRequest": "1 streamName string, 2 records PutRecordsRequestEntry*, 30 streamId string",
    "PutRecordsRequestEntry": "3 data bytes, 4 explicitHashKey string, 5 partitionKey string, 6 partitionId string, "
    f"29 timestamp int64={NO_TIMESTAMP}",
    "PutRecordsResult": "21 failedRecordCount int32!, 22 records PutRecordsResultEntry*",
    "PutRecordsResultEntry": "23 shardId string, 24 sequenceNumber string, 25 errorCode string, 26 errorMessage string",
    "GetRecordsResult": "14 nextShardIterator string!, 16 records Record*",
    "Record": "17 partitionKey string, 18 sequenceNumber string!, 19 data bytes, 27 timestamp int64, "
    "28 timestampType string",
}
"""proto2; field numbers are unique across all messages. `*` repeated; `!` required: parsers of official clients throw
where it is missing. The extendedInfo (7) of an entry, of the file upload that the service gave up, is not declared: a
parser passes over what it does not know.
"""

_TYPES = {
    "string": Field.TYPE_STRING,
    "bytes": Field.TYPE_BYTES,
    "int32": Field.TYPE_INT32,
    "int64": Field.TYPE_INT64,
}


def _classes() -> dict[str, Any]:
    """The message classes, in a pool of their own: official clients register messages of the same names."""
    file = FileDescriptorProto(name="disstream/records.proto", syntax="proto2")
    for message, fields in _MESSAGES.items():
        declared = file.message_type.add(name=message)
        for text in fields.split(", "):
            number, name, kind = text.split()
            kind, _, default = kind.partition("=")
            field = declared.field.add(name=name, number=int(number), label=Field.LABEL_OPTIONAL)
            if kind.endswith("*"):
                field.label, field.type, field.type_name = Field.LABEL_REPEATED, Field.TYPE_MESSAGE, f".{kind[:-1]}"
                continue
            if kind.endswith("!"):
                field.label = Field.LABEL_REQUIRED
            field.type = _TYPES[kind.rstrip("!")]
            if default:
                field.default_value = default
    pool = DescriptorPool()
    pool.AddSerializedFile(file.SerializeToString())
    return {name: GetMessageClass(pool.FindMessageTypeByName(name)) for name in _MESSAGES}


_CLASSES = _classes()
PutRecordsRequest, PutRecordsResult = _CLASSES["PutRecordsRequest"], _CLASSES["PutRecordsResult"]
GetRecordsResult = _CLASSES["GetRecordsResult"]
