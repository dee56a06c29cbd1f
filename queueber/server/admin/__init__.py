"""
Interfaces for a local administrator: the control socket, its methods, the self-check and the debugging console.

Knows the parts that serve calls and the diagnostics; does not know how they are
configured or started.  Start at `control_socket`, then `handlers` for the methods
and `console` for the Python prompt.
"""
