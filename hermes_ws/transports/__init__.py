"""Ways in and out: the ASGI app with its sockets and HTTP routes, access, and the server that runs it."""
