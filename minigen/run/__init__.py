"""Training runs around the loop in train.py: start, resume, clock, memory, signals, ranks, log.

`start.start` makes a run, and the loop calls the methods of `run.Run`.
"""
