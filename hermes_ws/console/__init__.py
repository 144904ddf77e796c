"""The commands that are clients of a server: ``connect``, ``tail`` and ``conversations``.

They speak the public protocol only, through :mod:`hermes_ws.client`. ``target`` knows where the server is and says what
to do when it is not there; ``view`` turns frames into text, ``lines`` text into intentions; ``talk`` joins the two,
under a terminal (``screen``) or between pipes (``pipes``); ``tail`` and ``listing`` are the other two commands.
"""
