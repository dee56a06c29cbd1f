"""
Load generators: many clients in one process, their counts, and their results.

The engines take the reactor, the connections and a `ProgressReporter` as arguments.
They know no command line and no terminal: the commands `stress`, `simulate` and `bench`
in `queueber.cli` assemble them.  Start reading at `scenarios`.
"""
