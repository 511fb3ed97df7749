"""Workers: handlers that are called with records, and what becomes of records that cannot be handled.

parking*      what of one partition is parked or suspended; what is to be done with a record of a parked key
letters*      dead letters as bytes: in a stream, in a file
deadletters   where they are written: a stream, a file
reading       where they are read, and marked
plan*         which of them are to be sent back, and what unparks their keys
redrive       dead letters shown, sent back to where they came from, discarded

`*` = pure. On the roof: stands on the public face of the library.
"""
