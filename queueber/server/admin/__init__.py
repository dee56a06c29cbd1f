"""
What a local administrator may do: the control socket, its methods, the self-check and the debugging console.

Start at `control_socket`, then `handlers` for the methods and `console` for
the Python prompt.
"""
