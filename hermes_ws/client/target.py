"""Where to connect, and as whom."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterable
from dataclasses import dataclass, field, replace
from urllib.parse import parse_qsl, quote, urlencode, urlsplit, urlunsplit

__all__ = ["GetTicket", "Target"]

GetTicket = Callable[[], Awaitable[str]]

_SCHEMES = {"http": "ws", "https": "wss", "ws": "ws", "wss": "wss"}


@dataclass(frozen=True, slots=True, kw_only=True)
class Target:
    """A conversation's address and a credential for it."""

    base: str
    """``ws://host:port`` and a path prefix, if there is one."""
    conversation_id: str
    key: str | None = field(default=None, repr=False)
    ticket: str | None = field(default=None, repr=False)
    get_ticket: GetTicket | None = field(default=None, repr=False)
    extra: tuple[tuple[str, str], ...] = ()
    """Query parameters of the given URL that are not ours."""

    @classmethod
    def of(
        cls,
        url: str,
        conversation_id: str | None = None,
        *,
        key: str | None = None,
        ticket: str | None = None,
        get_ticket: GetTicket | None = None,
    ) -> Target:
        """``url`` is a conversation's (``ws://host/ws/ID``), or the server's, and then ``conversation_id`` is needed.

        Raises ``ValueError`` that says which.
        """
        parts = urlsplit(url)
        if parts.scheme not in _SCHEMES or not parts.netloc:
            raise ValueError(f"a URL such as http://127.0.0.1:8642 or ws://127.0.0.1:8642/ws/ID is needed, not {url!r}")
        path = parts.path.rstrip("/")
        prefix, found, last = path.rpartition("/ws/")
        if conversation_id is None:
            if not found or not last or "/" in last:
                raise ValueError(f"{url!r} names no conversation: end it with /ws/ID, or give conversation_id")
            path, conversation_id = prefix, last
        if key is not None and not (key.isascii() and key.isprintable() and key == key.strip() and key):
            raise ValueError("a key is printable ASCII without white space around it")
        query = dict(parse_qsl(parts.query))
        return cls(
            base=urlunsplit((_SCHEMES[parts.scheme], parts.netloc, path, "", "")),
            conversation_id=conversation_id,
            key=key,
            ticket=ticket or query.pop("ticket", None),
            get_ticket=get_ticket,
            extra=tuple(query.items()),
        )

    def named(self, conversation_id: str) -> Target:
        """The same server and credential, another conversation: what the server chose for ``new``."""
        return replace(self, conversation_id=conversation_id)

    def url(self, query: Iterable[tuple[str, str]]) -> str:
        """The socket's address with these parameters."""
        ours = dict(query)
        pairs = [pair for pair in self.extra if pair[0] not in ours] + list(ours.items())
        return f"{self.base}/ws/{quote(self.conversation_id, safe=':')}" + (f"?{urlencode(pairs)}" if pairs else "")

    @property
    def headers(self) -> dict[str, str]:
        return {} if self.key is None else {"Authorization": f"Bearer {self.key}"}

    async def fresh_ticket(self) -> str | None:
        """A ticket for one connect, if that is how we get in."""
        return await self.get_ticket() if self.get_ticket is not None else self.ticket
