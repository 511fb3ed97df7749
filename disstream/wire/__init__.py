"""The wire: bytes <-> model, for client and server both. Pure: no IO, no clock, no tasks.

http          Request and Response, the plain types both sides speak; splitting of targets
routes        the table of operations: method + path, built by the client and matched by the server
errors        the table of DIS codes; error bodies in both directions
streams       bodies of the stream calls (API 5.1)
records       bodies of put and get (API 5.4.1, 5.4.2): the hot path
cursors       cursor requests and the cursor token itself (API 5.4.3)
partitioning  partition ids, key hashing, published hash ranges

Called by `client` and `server`; never imports upwards.
"""
