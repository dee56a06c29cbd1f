"""
What puts load on a server: many clients in one process, what they count, and how it is shown.

The engines take the reactor and what makes clients as arguments, and tell how
far they are to a `ProgressReporter`; the commands `stress`, `simulate` and `bench` put them together.
"""
