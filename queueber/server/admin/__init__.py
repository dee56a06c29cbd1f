"""
Interfaces for a local administrator: the control socket, its methods, the self-check and the debugging console.

Start at `control_socket`, then `handlers` for the methods and `console` for
the Python prompt.
"""
