"""The wire: bytes <-> model, for client and server both. Pure: no IO, no clock, no tasks.

http          Request and Response, the plain types both sides speak; splitting of targets
routes        the table of operations: method + path, built by the client and matched by the server
errors        the table of DIS codes; error bodies in both directions
streams       bodies of the stream calls (API 5.1)
policies      bodies of the policy calls (API 5.1.7, 5.1.8)
records       bodies of put and get (API 5.4.1, 5.4.2): the hot path
protobuf      the same bodies in the other form that clients may choose
messages      the messages of that form
columns       the body of a put that our own server reads fastest
pages         the answer to a get that our own server writes fastest, and our own client reads fastest
envelope      several records, headers and identity in the payload of one
compression   bodies of requests as they travel compressed
sessions      the header of a put that may not be stored twice
places        the short answer to a put
notices       which partitions have something new: a request, and an answer that goes on
caps          the header that tells how fast a partition may be written
layouts       the header that tells how often the partitions were changed
apps          bodies of the app calls (API 5.2)
checkpoints   bodies of the checkpoint calls (API 5.3); what the number in a checkpoint means
annotations   what a consumer keeps with a checkpoint beside its number
groups        bodies of the group protocol
dumps         bodies of the dump task calls (API 5.5)
body          decoding of JSON bodies, with the errors each side owes
cursors       cursor requests and the cursor token itself (API 5.4.3)
metrics       queries and answers of the metrics calls (API 5.6)
tags          bodies of the tag calls (API 5.7)
signing       request signatures, made and checked
iam           bodies of the IAM calls (API 1.3, 1.5)
partitioning  partition ids, key hashing, published hash ranges
sharing       which member of a group reads which partition: no bytes, but both sides must deal alike

Called by `client`, `consumer` and `server`; never imports upwards.
"""
