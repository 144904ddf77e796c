"""What every socket is greeted with."""

from __future__ import annotations

from hermes_ws import __version__
from hermes_ws.protocol import PROTOCOL
from hermes_ws.protocol.control import Hello, Resume, SchemaRef, ServerInfo
from hermes_ws.protocol.schema import JSON_SCHEMA, sha256
from hermes_ws.runtime.principal import Caller
from hermes_ws.runtime.runtime import Runtime
from hermes_ws.settings import LimitSettings

__all__ = ["hello"]


def hello(
    runtime: Runtime,
    caller: Caller,
    limits: LimitSettings,
    *,
    conversation_id: str | None,
    epoch: str | None,
    floor: int,
    resume: Resume,
    hint: str,
) -> Hello:
    """The first frame of a socket."""
    return Hello(
        protocol=PROTOCOL,
        server=ServerInfo(name="hermes-ws", version=__version__, instance=runtime.instance),
        conversation_id=conversation_id,
        epoch=epoch,
        head=resume.to,
        floor=floor,
        principal=caller.principal.name,
        role=caller.principal.role,
        limits={
            "frame_bytes": limits.frame_bytes,
            "commands_in_flight": limits.commands_in_flight,
            "queue_length": runtime.settings.sessions.queue_length,
        },
        resume=resume,
        schema=SchemaRef(url=f"/schemas/{JSON_SCHEMA}", sha256=sha256()),
        hint=hint,
    )
