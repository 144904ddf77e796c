"""The sockets as an AsyncAPI 3 document: addresses, queries, credentials, and messages each way.

AsyncAPI's own schema dialect is a superset of JSON Schema draft 07, where nothing may stand beside ``$ref``; so a
described reference becomes ``allOf`` of one. Actions are the server's: it *sends* events and *receives* commands.
"""

from __future__ import annotations

from typing import Any, Final, TypeAlias

from hermes_ws.protocol import BEARER_PREFIX, PROTOCOL
from hermes_ws.protocol.commands import INBOX
from hermes_ws.protocol.schema.json_schema import UNIONS, json_schema
from hermes_ws.protocol.schema.model import Definition, Kind, definitions

__all__ = ["asyncapi"]

_Json: TypeAlias = "bool | int | float | str | list[_Json] | dict[str, _Json] | None"

_CONVERSATION: Final = "conversation"
_INBOX: Final = "inbox"
_OF_INBOX: Final = frozenset({"InboxPage", "InboxChanged", "InboxRemoved", "InboxMore"})
"""Frames that go nowhere else."""
_IN_INBOX: Final = _OF_INBOX | {"Hello", "Ok", "Error", "Heartbeat", "GoAway", *(cls.__name__ for cls in INBOX)}
"""Frames of the inbox, each way."""
_SECURITY: Final = ("bearer", "subprotocol", "ticket")


def asyncapi() -> dict[str, Any]:
    """The whole document."""
    return {
        "asyncapi": "3.1.0",
        "id": f"urn:hermes-ws:{PROTOCOL}:asyncapi",
        "info": _info(),
        "defaultContentType": "application/json",
        "servers": _servers(),
        "channels": {_CONVERSATION: _conversation(), _INBOX: _inbox()},
        "operations": _operations(),
        "components": {
            "messages": {d.name: _message(d) for d in _frames()},
            "schemas": {name: _draft_07(schema) for name, schema in _schemas().items()},
            "securitySchemes": _security_schemes(),
        },
    }


def _info() -> dict[str, Any]:
    return {
        "title": "hermes-ws",
        "version": PROTOCOL,
        "description": "One WebSocket per conversation: typed events out, commands in. And one for all of them.",
        "contact": {"name": "hermes-ws", "url": "https://pypi.org/project/hermes-ws/"},
        "license": {"name": "MIT", "url": "https://opensource.org/license/mit"},
        "tags": [{"name": name.lower(), "description": UNIONS[name]} for name in ("Event", "Control", "Command")],
    }


def _servers() -> dict[str, Any]:
    security = [{"$ref": f"#/components/securitySchemes/{name}"} for name in _SECURITY]
    return {
        "local": {
            "host": "{host}:{port}",
            "protocol": "ws",
            "description": "A server on this machine.",
            "variables": {
                "host": {"default": "127.0.0.1", "description": "Where it listens."},
                "port": {"default": "8642", "description": "The port it listens on."},
            },
            "security": security,
        },
        "public": {
            "host": "{host}",
            "protocol": "wss",
            "description": "A server behind a TLS proxy, at its `public_url`.",
            "variables": {"host": {"default": "hermes.example.com", "description": "Host of `public_url`."}},
            "security": security,
        },
    }


def _conversation() -> dict[str, Any]:
    return {
        "address": "/ws/{conversationId}",
        "title": "One conversation",
        "summary": "A cursor over the conversation's log, live once it has caught up.",
        **_socket(_CONVERSATION, _query()),
        "parameters": {
            "conversationId": {
                "description": "The client's choice, or `new`, which lets the server choose. The first accepted "
                "command creates the conversation.",
                "examples": ["demo", "new"],
            }
        },
    }


def _inbox() -> dict[str, Any]:
    return {
        "address": "/ws",
        "title": "All conversations",
        "summary": "The latest state of each, those that need a person first. Nothing is replayed.",
        **_socket(_INBOX, {"type": "object", "properties": {"plain": _plain()}}),
    }


def _socket(channel: str, query: dict[str, Any]) -> dict[str, Any]:
    """What the channels have in common."""
    return {
        "description": f"UTF-8 JSON text frames, one object each. The subprotocol `{PROTOCOL}` is optional.",
        "servers": [{"$ref": "#/servers/local"}, {"$ref": "#/servers/public"}],
        "messages": {d.name: {"$ref": f"#/components/messages/{d.name}"} for d in _frames(channel)},
        "bindings": {"ws": {"method": "GET", "query": query, "bindingVersion": "0.1.0"}},
    }


def _query() -> dict[str, Any]:
    return {
        "type": "object",
        "properties": {
            "after": _parameter("integer", "Deliver what follows this `seq`; 0 is everything.", minimum=0),
            "epoch": _parameter("string", "The epoch that `after` belongs to. Default: the current one."),
            "from": _parameter(
                "string",
                "Where to begin when there is no `after`.",
                enum=["start", "snapshot", "now"],
                default="snapshot",
            ),
            "exclude": _parameter("string", "Types not to deliver, such as `message.delta,reasoning.delta`."),
            "plain": _plain(),
            "ticket": _parameter("string", "A single-use credential from `POST /api/tickets`."),
        },
    }


def _plain() -> dict[str, Any]:
    return _parameter("string", "Readable lines in place of JSON, for a terminal.", enum=["1"])


def _parameter(type_: str, description: str, **more: Any) -> dict[str, Any]:
    return {"type": type_, "description": description, **more}


def _operations() -> dict[str, Any]:
    return {
        "sendFrame": _frames_out(
            _CONVERSATION, "Frames out", "Events of the log, and control frames about the connection."
        ),
        "receiveCommand": _commands_in(_CONVERSATION, "Commands in"),
        "sendInboxFrame": _frames_out(
            _INBOX, "Frames out of the inbox", "Pages of conversations, and each that is another by now."
        ),
        "receiveInboxCommand": _commands_in(_INBOX, "Commands into the inbox"),
    }


def _frames_out(channel: str, title: str, summary: str) -> dict[str, Any]:
    return {
        "action": "send",
        "title": title,
        "summary": summary,
        "channel": _channel_ref(channel),
        "messages": _message_refs(channel, "event", "control"),
    }


def _commands_in(channel: str, title: str) -> dict[str, Any]:
    answers = [_message_ref(channel, "Ok"), _message_ref(channel, "Error")]
    return {
        "action": "receive",
        "title": title,
        "summary": "What a client asks for; each gets exactly one `ok` or `error`.",
        "channel": _channel_ref(channel),
        "messages": _message_refs(channel, "command"),
        "reply": {"channel": _channel_ref(channel), "messages": answers},
    }


def _channel_ref(channel: str) -> dict[str, Any]:
    return {"$ref": f"#/channels/{channel}"}


def _message_refs(channel: str, *kinds: Kind) -> list[dict[str, Any]]:
    return [_message_ref(channel, d.name) for d in _frames(channel) if d.kind in kinds]


def _message_ref(channel: str, name: str) -> dict[str, Any]:
    return {"$ref": f"#/channels/{channel}/messages/{name}"}


def _message(definition: Definition) -> dict[str, Any]:
    return {
        "name": definition.tag,
        "title": definition.tag,
        "summary": definition.doc,
        "contentType": "application/json",
        "tags": [{"name": definition.kind}],
        "payload": {"$ref": f"#/components/schemas/{definition.name}"},
    }


def _frames(channel: str | None = None) -> list[Definition]:
    """Frames that go over a channel, or over any."""
    frames = [d for d in definitions() if d.kind in ("event", "control", "command")]
    if channel == _INBOX:
        return [d for d in frames if d.name in _IN_INBOX]
    return frames if channel is None else [d for d in frames if d.name not in _OF_INBOX]


def _schemas() -> dict[str, Any]:
    """What the messages are made of. A channel lists its messages, so the unions are not needed; nor is HTTP."""
    elsewhere = {*UNIONS, *(d.name for d in definitions() if d.kind == "resource")}
    every: dict[str, Any] = json_schema()["$defs"]
    return {name: schema for name, schema in every.items() if name not in elsewhere}


def _security_schemes() -> dict[str, Any]:
    return {
        "bearer": {"type": "http", "scheme": "bearer", "description": "`Authorization: Bearer KEY`."},
        "subprotocol": {
            "type": "httpApiKey",
            "in": "header",
            "name": "Sec-WebSocket-Protocol",
            "description": f"`{PROTOCOL}, {BEARER_PREFIX}KEY`, the key in base64url: for browsers.",
        },
        "ticket": {
            "type": "httpApiKey",
            "in": "query",
            "name": "ticket",
            "description": "A single-use ticket from `POST /api/tickets`.",
        },
    }


def _draft_07(schema: _Json) -> _Json:
    """The same schema, referring into ``components`` and with nothing beside a reference."""
    if isinstance(schema, list):
        return [_draft_07(branch) for branch in schema]
    if not isinstance(schema, dict):
        return schema
    beside = {key: _draft_07(part) for key, part in schema.items() if key != "$ref"}
    target = schema.get("$ref")
    if not isinstance(target, str):
        return beside
    reference: _Json = {"$ref": target.replace("#/$defs/", "#/components/schemas/")}
    return {**beside, "allOf": [reference]} if beside else reference
