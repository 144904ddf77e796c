"""``hermes-ws doctor``: is what the configuration says there, and does it work.

Looks only: it makes no file and no directory, and a server may be running meanwhile. A check is a coroutine that takes
the settings and says what it found about its subject; :data:`CHECKS` is the list of them.
"""

from __future__ import annotations

import errno
import fcntl
import importlib.metadata
import os
import platform
import shutil
import socket
import stat
from collections.abc import Awaitable, Callable, Sequence
from contextlib import closing, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, cast

import anyio
import httpx2
import msgspec

from hermes_ws.agents.base import Agent
from hermes_ws.compat.about_types import Health
from hermes_ws.errors import HermesError
from hermes_ws.findings import Finding
from hermes_ws.scrub import Scrubber
from hermes_ws.settings import Settings, secret_values
from hermes_ws.store.directory import DataDirectory
from hermes_ws.tools.mcp.check import check_server
from hermes_ws.tools.mcp.settings import operator_servers
from hermes_ws.transports.server import agent_terms, make_access, make_agents

__all__ = ["CHECKS", "Section", "examine", "healthy", "report", "report_json"]

_LITTLE_SPACE: Final = 256 * 2**20
_HEALTH_S: Final = 3.0
_FAST: Final = ("uvloop", "httptools")


@dataclass(frozen=True, slots=True)
class Section:
    """What was found about one subject."""

    subject: str
    findings: list[Finding]


async def examine(settings: Settings, *, ask: bool) -> list[Section]:
    """All checks. ``ask`` allows what costs something."""
    scrubber = Scrubber()
    scrubber.set([*secret_values(settings), *filter(None, [settings.server.key, settings.secrets.key])])
    found = [section for check in CHECKS for section in await check(settings, ask)]
    return [Section(section.subject, [_told(scrubber, one) for one in section.findings]) for section in found]


def _told(scrubber: Scrubber, finding: Finding) -> Finding:
    """What may be shown: a server or an endpoint may have repeated a secret."""
    return Finding(finding.level, scrubber.text(finding.what), scrubber.text(finding.advice))


def healthy(sections: Sequence[Section]) -> bool:
    """Whether nothing is wrong. Warnings are not."""
    return not any(finding.level == "problem" for section in sections for finding in section.findings)


def report(sections: Sequence[Section]) -> str:
    """For people: a line for every finding, and one for what to do about it."""
    width = max(len(section.subject) for section in sections)
    lines: list[str] = []
    for section in sections:
        for finding in section.findings:
            lines.append(f"{finding.level:<8} {section.subject:<{width}}  {finding.what}")
            if finding.advice:
                lines.append(f"{'':<8} {'':<{width}}  -> {finding.advice}")
    return "\n".join(lines)


def report_json(sections: Sequence[Section]) -> str:
    """For programs: one object."""
    found = [
        {"subject": section.subject, "level": finding.level, "what": finding.what, "advice": finding.advice}
        for section in sections
        for finding in section.findings
    ]
    return msgspec.json.encode({"ok": healthy(sections), "findings": found}).decode()


# -- python ----------------------------------------------------------------------------------------------


async def _python(settings: Settings, ask: bool) -> list[Section]:
    version = f"{platform.python_implementation()} {platform.python_version()}"
    missing = [name for name in _FAST if not _installed(name)]
    if missing:
        found = Finding(
            "warning", f"{version} without {', '.join(missing)}", f"pip install {' '.join(missing)}: faster"
        )
    else:
        found = Finding("ok", ", ".join([version, *(f"{n} {importlib.metadata.version(n)}" for n in _FAST)]))
    return [Section("python", [found])]


def _installed(name: str) -> bool:
    try:
        importlib.import_module(name)
    except ImportError:
        return False
    return True


# -- access ----------------------------------------------------------------------------------------------


async def _access(settings: Settings, ask: bool) -> list[Section]:
    """Who may come in, as the server would see it. With a key in place it does not look for one in its directory."""
    server = settings.server
    placed = server if server.key is not None else msgspec.structs.replace(server, key="doctor")
    try:
        make_access(msgspec.structs.replace(settings, server=placed), cast(DataDirectory, None))
    except HermesError as error:
        return [Section("access", [Finding("problem", str(error), "see [server] in the configuration")])]
    if not server.auth:
        return [Section("access", [Finding("warning", "no key is needed: whoever reaches the port may do everything")])]
    whose = "of the configuration" if server.key is not None else "in the data directory"
    return [Section("access", [Finding("ok", f"with the key {whose}")])]


# -- data directory --------------------------------------------------------------------------------------


async def _data(settings: Settings, ask: bool) -> list[Section]:
    return [Section("data", _named(settings.server.data))]


def _named(name: str) -> list[Finding]:
    try:
        path = Path(name).expanduser().resolve()
        return _directory(path) if path.exists() else [_not_made(path)]
    except (OSError, RuntimeError, ValueError) as error:
        return [Finding("problem", f"{name!r}: {error}", "set server.data to a directory")]


def _not_made(path: Path) -> Finding:
    parent = next(parent for parent in path.parents if parent.exists())
    if os.access(parent, os.W_OK | os.X_OK):
        return Finding("ok", f"{path} is not there yet; the server makes it")
    return Finding("problem", f"{path} cannot be made: {parent} is not writable", "make it, or set server.data")


def _directory(path: Path) -> list[Finding]:
    if not path.is_dir():
        return [Finding("problem", f"{path} is no directory", "set server.data to one")]
    if not os.access(path, os.R_OK | os.W_OK | os.X_OK):
        return [Finding("problem", f"{path} is not writable for this user", "see who owns it, or set server.data")]
    found = [Finding("ok", f"{path} is writable; {_holder(path)}")]
    free = shutil.disk_usage(path).free
    if free < _LITTLE_SPACE:
        found.append(Finding("warning", f"{free // 2**20} MiB are free on its disk", "make room, or: hermes-ws gc"))
    return [*found, *_key_file(path / "hermes-ws.key")]


def _holder(path: Path) -> str:
    """Whether a server has it. Asks for the lock in a way that only a server about to start could notice."""
    try:
        lock = os.open(path / "hermes-ws.lock", os.O_RDONLY | os.O_CLOEXEC)
    except OSError:
        return "no server has used it yet"
    try:
        fcntl.flock(lock, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except OSError:
        return f"a server is running on it (process {os.pread(lock, 32, 0).decode(errors='replace').strip()})"
    finally:
        os.close(lock)
    return "no server is running on it"


def _key_file(path: Path) -> list[Finding]:
    with suppress(OSError):
        if stat.S_IMODE(path.stat().st_mode) & 0o077:
            return [Finding("warning", f"others can read the key in {path}", f"chmod 600 {path}")]
    return []


# -- port ------------------------------------------------------------------------------------------------


async def _port(settings: Settings, ask: bool) -> list[Section]:
    host, port = settings.server.host, settings.server.port
    where = f"{host}:{port}"
    if port == 0:
        return [Section("port", [Finding("ok", f"{host}: the server takes a free one")])]
    refusal = _bound(host, port)
    if refusal is None:
        found = Finding("ok", f"{where} is free")
    elif refusal.errno == errno.EADDRINUSE and await _serves(host, port):
        found = Finding("ok", f"{where} is held by a running server, which answers")
    elif refusal.errno == errno.EADDRINUSE:
        found = Finding("problem", f"{where} is held by another program", "stop it, or set server.port")
    else:
        found = Finding(
            "problem", f"cannot listen on {where}: {refusal.strerror or refusal}", "set server.host and port"
        )
    return [Section("port", [found])]


def _bound(host: str, port: int) -> OSError | None:
    """Why the address cannot be listened on, as the server would."""
    try:
        family, kind, proto, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
        with closing(socket.socket(family, kind, proto)) as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            probe.bind(address)
    except UnicodeError:
        return OSError("that is no host name or address")
    except OSError as error:
        return error
    return None


async def _serves(host: str, port: int) -> bool:
    """Whether what listens there answers as our server does."""
    name = {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(host, host)  # noqa: S104 - asked for, not listened on
    url = httpx2.URL(scheme="http", host=name, port=port, path="/health")
    try:
        async with httpx2.AsyncClient(timeout=_HEALTH_S, trust_env=False) as http:
            answer = await http.get(url)
            msgspec.json.decode(answer.content, type=Health)
            return answer.status_code == 200
    except (httpx2.HTTPError, msgspec.DecodeError):
        return False


# -- agents ----------------------------------------------------------------------------------------------


async def _agents(settings: Settings, ask: bool) -> list[Section]:
    """Each agent that is declared, all at once: endpoints take their time."""
    sections = {name: Section(f"agent {name}", []) for name in settings.agents}

    async def check(name: str, table: dict[str, Any]) -> None:
        sections[name].findings.extend(await _agent(name, table, ask))

    async with anyio.create_task_group() as group:
        for name, table in settings.agents.items():
            group.start_soon(check, name, table)
    default = settings.server.default_agent
    if default not in settings.agents:
        problem = Finding("problem", f"server.default_agent {default!r} is not declared", f"add [agents.{default}]")
        return [*sections.values(), Section("agents", [problem])]
    return list(sections.values())


async def _agent(name: str, table: dict[str, Any], ask: bool) -> list[Finding]:
    try:
        agent_terms({name: table})
        return await _checked(make_agents({name: table})[name], ask)
    except HermesError as error:
        return [Finding("problem", str(error), f"see [agents.{name}] in the configuration")]
    except Exception as error:  # noqa: BLE001 - an agent may be somebody else's code
        return [Finding("problem", f"it cannot be checked: {type(error).__name__}: {error}")]


async def _checked(agent: Agent, ask: bool) -> list[Finding]:
    check, let_go = getattr(agent, "check", None), getattr(agent, "aclose", None)
    try:
        findings: list[Finding] = await check(ask=ask) if check is not None else []
    finally:
        if let_go is not None:
            await let_go()
    return findings or [Finding("ok", "there is nothing to check")]


# -- MCP servers -----------------------------------------------------------------------------------------


async def _mcp_servers(settings: Settings, ask: bool) -> list[Section]:
    """Each server of the operator's, started once, all at the same time."""
    sections = {name: Section(f"mcp {name}", []) for name in settings.mcp_servers}

    async def check(name: str, table: dict[str, Any]) -> None:
        try:
            server = operator_servers({name: table})[name]
            sections[name].findings.extend(await check_server(name, server, settings.mcp))
        except HermesError as error:
            advice = f"see [mcp_servers.{name}] in the configuration"
            sections[name].findings.append(Finding("problem", str(error), advice))

    async with anyio.create_task_group() as group:
        for name, table in settings.mcp_servers.items():
            group.start_soon(check, name, table)
    return list(sections.values())


Check = Callable[[Settings, bool], Awaitable[list[Section]]]

CHECKS: Final[Sequence[Check]] = (_python, _access, _data, _port, _agents, _mcp_servers)
"""All of them, in the order in which they are told. Further ones go here."""
