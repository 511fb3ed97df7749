"""The load generator behind `disstream bench` and `disstream demo`. Every run checks what it times.

check      pure: which of the numbered records came back, how often, and in which order
flights    rows of a CSV file as numbered records
processes  a server and a reader in processes of their own, ended with the run
reader     the main program of the reading process
demo       the main job: produce a file, read it in another process, compare
stage      workers share a stream while something happens to them
takeover   two workers share the file, and one is killed
worker     the main program of such a worker
ledger     pure: what workers handled, from what they wrote down
chart      the rates of workers as a picture
laps       what a bench does and what came of it: plans, ways, laps, results
timing     pure: percentiles, and instants at which something is due
writing    the ways to write: at full speed, or each record at its instant
arrival    when records reach a consumer that reads beside their producer
load       produce and consume, repeated in turn
pulse      how late the event loop comes to its timers
sweep      one thing changes from lap to lap
soak       writing for a long time: rate and memory
beside     an old client and a fresh one that write in turn; the main program of the fresh one
curves     figures over something as a picture
machine    what the figures were measured on
report     results as text

Called by the command line and by the scripts in benchmarks/; stands on the public face of the library alone.
"""
