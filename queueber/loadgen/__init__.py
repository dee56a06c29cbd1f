"""
Load generators: many clients in one process, their counts, and their display.

The engines take the reactor and a client factory as arguments, and report their
progress to a `ProgressReporter`.  The commands `stress`, `simulate` and `bench` assemble them.
"""
