"""
The client of a server without I/O, under the Twisted, asyncio and blocking faces.

Knows the methods of the `.capnp` files, the RPC protocol, arguments, addresses
and errors, and neither a socket, a reactor, an event loop nor a thread: time and
random numbers are arguments.  Start at `calls` for one call as a value, then
`connection` for one connection and `reconnect` for the next one.
"""
