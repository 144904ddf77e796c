"""The command line."""

from __future__ import annotations

import os
import re
import sys
import time
from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from urllib.parse import urlencode

import click

from hermes_ws import __version__
from hermes_ws.errors import HermesError

CONTEXT = {"help_option_names": ["-h", "--help"], "max_content_width": 100}


class Failure(click.ClickException):
    """An error that says what to do."""

    def show(self, file: Any = None) -> None:
        click.echo(f"hermes-ws: {self.message}", err=True)


@click.group(context_settings=CONTEXT)
@click.version_option(__version__, prog_name="hermes-ws")
def main() -> None:
    """A run server for agents: one WebSocket per conversation, durable and resumable."""


config_option = click.option(
    "--config",
    "config_file",
    type=click.Path(path_type=Path, dir_okay=False),
    envvar="HERMES_WS_CONFIG",
    help="A TOML file of settings.",
)


def _load(config_file: Path | None, flags: dict[str, Any]) -> Any:
    from hermes_ws.settings import load

    try:
        return load(file=config_file, environment=os.environ, flags=flags)
    except HermesError as error:
        raise Failure(str(error)) from None


@main.command()
@click.option("--host", help="Address to listen on (default 127.0.0.1).")
@click.option("--port", type=click.IntRange(0, 65_535), help="Port to listen on (default 8642; 0 takes a free one).")
@click.option("--data", help="Data directory (default ./hermes-ws-data). It may hold other files.")
@config_option
@click.option("--no-auth", is_flag=True, help="Let everybody in who reaches the port. Loopback addresses only.")
def serve(host: str | None, port: int | None, data: str | None, config_file: Path | None, no_auth: bool) -> None:
    """Run the server."""
    import asyncio

    from hermes_ws.observe import BestEffort, configure_logging
    from hermes_ws.transports.server import serve as run

    flags = {"server.host": host, "server.port": port, "server.data": data, "server.auth": False if no_auth else None}
    settings = _load(config_file, flags).settings
    configure_logging(level=settings.log.level, as_json=settings.log.json)
    try:
        with asyncio.Runner(loop_factory=_loop_factory()) as runner:
            runner.run(run(settings, lambda running: print(_welcome(running), file=BestEffort(sys.stdout), flush=True)))
    except HermesError as error:
        raise Failure(str(error)) from None
    except KeyboardInterrupt:
        sys.exit(130)


def _loop_factory() -> Any:
    """uvloop where it is installed."""
    try:
        import uvloop
    except ImportError:
        return None
    return uvloop.new_event_loop


def _welcome(running: Any) -> str:
    """Ready-to-paste lines, as Jupyter prints them."""
    socket = "ws" + running.url.removeprefix("http")
    key = running.key
    where = f" (kept in {running.key_file})" if running.key_file else ""
    header = f' -H "Authorization: Bearer {key}"' if key else ""
    lines = [
        f"hermes-ws {__version__} is listening on {running.url}",
        f"data in {running.data}",
        f"key: {key}{where}"
        if key
        else "NO KEY IS NEEDED (--no-auth): whoever can reach this port can run commands here.",
        "",
        "Talk to it:",
        f"  hermes-ws connect demo --url {running.url}" + (f" --key {key}" if key else ""),
        f'  wscat -c "{socket}/ws/demo?plain=1"{header}',
        f"  curl {running.url}/api/conversations{header}",
        f"  {running.url}/example#{urlencode(({'key': key} if key else {}) | {'c': 'demo'})}   (in a browser)",
        "",
        "The terminal tool can do what this Unix user can; approvals ask before it runs. Ctrl+C stops the server.",
    ]
    return "\n".join(lines)


def _server_options(command: Any) -> Any:
    """Where the server is, and a key for it: for the commands that are clients."""
    url = click.option(
        "--url",
        envvar="HERMES_WS_URL",
        default="http://127.0.0.1:8642",
        show_default=True,
        show_envvar=True,
        help="The server.",
    )
    key = click.option(
        "--key",
        envvar=["HERMES_WS_KEY", "API_SERVER_KEY"],
        show_envvar=True,
        help="A key for it (default: that of a server with its data in ./hermes-ws-data).",
    )
    return url(key(command))


@contextmanager
def _talking_to(url: str, key: str | None) -> Generator[Any]:
    """The server; what goes wrong with it becomes a line that says what to do."""
    from hermes_ws.console.target import Server, explained

    server = Server.of(url, key)
    try:
        yield server
    except (HermesError, ValueError) as error:
        raise Failure(explained(error, server)) from None
    except KeyboardInterrupt:
        sys.exit(130)
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


@main.command()
@click.argument("conversation")
@_server_options
def connect(conversation: str, url: str, key: str | None) -> None:
    """Talk with a conversation ("new": one of a fresh name).

    At a terminal: /help says what can be typed. Between pipes: a line is taken when what the one before began has
    ended, or asks something; leaves with the last line, with status 1 if the last run failed.
    """
    import asyncio

    from hermes_ws.console.connect import talk

    with _talking_to(url, key) as server:
        status = asyncio.run(talk(server, conversation))
        sys.exit(status)


@main.command()
@click.argument("conversation")
@click.option("--after", type=click.IntRange(0), default=0, help="Begin after this number (default 0: everything).")
@click.option("--live", is_flag=True, help="Begin with what comes from now on.")
@click.option("--epoch", help="Which incarnation of the log --after counts in.")
@click.option("--exclude", multiple=True, metavar="TYPES", help="Event types to leave out, separated by commas.")
@click.option("--until-idle", is_flag=True, help="Leave when all is told and no run is active or waits.")
@_server_options
def tail(
    conversation: str,
    after: int,
    live: bool,
    epoch: str | None,
    exclude: tuple[str, ...],
    until_idle: bool,
    url: str,
    key: str | None,
) -> None:
    """Print a conversation's events, one JSON object a line, exactly as the server sends them, and go on as more come.

    Numbers that are left out are told by "skipped" lines; a "snapshot" line takes the place of a log that is gone.
    """
    import asyncio

    from hermes_ws.console.tail import tail as follow

    types = [kind.strip() for kinds in exclude for kind in kinds.split(",") if kind.strip()]
    with _talking_to(url, key) as server:
        begin = None if live else after
        asyncio.run(follow(server, conversation, after=begin, epoch=epoch, exclude=types, until_idle=until_idle))


@main.command()
@click.option("--json", "as_json", is_flag=True, help="One JSON object a line, as the server sends them.")
@_server_options
def conversations(as_json: bool, url: str, key: str | None) -> None:
    """List the conversations on a server, the newest first."""
    from hermes_ws.console.listing import conversations as listed
    from hermes_ws.console.listing import table

    with _talking_to(url, key) as server:
        if as_json:
            for _, line in listed(server):
                click.echo(line)
        else:
            click.echo(table([summary for summary, _ in listed(server)]))


_UNITS = {"s": 1, "m": 60, "h": 3_600, "d": 86_400}


def _seconds(ctx: click.Context, param: click.Parameter, value: str | None) -> float | None:
    """A time span: 24h, 30m, 7d, or a number of hours."""
    if value is None:
        return None
    number, unit = (value[:-1], value[-1]) if value[-1:] in _UNITS else (value, "h")
    if not re.fullmatch(r"[0-9]{1,6}(\.[0-9]{1,3})?", number):
        raise click.BadParameter(f"{value!r} is no age; say 24h, 30m, 7d, or a number of hours")
    return float(number) * _UNITS[unit]


@main.command()
@click.option("--data", help="Data directory (default ./hermes-ws-data).")
@config_option
@click.option(
    "--older-than",
    callback=_seconds,
    metavar="AGE",
    help="How long ago a run has ended whose deltas go: 24h, 30m, 7d, or hours (default: store.retention_s).",
)
@click.option(
    "--rewrite",
    is_flag=True,
    help="Write the log anew in the end, so that no trace of what was deleted stays. Best while no server runs: its "
    "commits wait for it, and fail if that takes longer than store.busy_timeout_s.",
)
def gc(data: str | None, config_file: Path | None, older_than: float | None, rewrite: bool) -> None:
    """Free the space of what has had its time: deleted conversations, deltas of ended runs, old outputs, images
    that no conversation refers to.

    Works on the data directory itself, whether a server has it open or not. Servers do the same by themselves now and
    then ([store] sweep_every_s).
    """
    from hermes_ws.store.collect import collect

    settings = _load(config_file, {"server.data": data}).settings
    now = time.time()
    age = settings.store.retention_s if older_than is None else older_than
    shows = sys.stderr.isatty()

    def progress(line: str) -> None:
        if shows:
            click.echo(f"\r\x1b[K{line}", nl=False, err=True)

    try:
        freed = collect(
            Path(settings.server.data).expanduser(),
            deltas_before=int((now - age) * 1_000),
            outputs_before=int((now - settings.store.outputs_retention_s) * 1_000),
            images_before=int((now - settings.blobs.unused_s) * 1_000),
            busy_timeout_s=settings.store.busy_timeout_s,
            rewriting=rewrite,
            progress=progress,
        )
    except HermesError as error:
        raise Failure(str(error)) from None
    except KeyboardInterrupt:
        sys.exit(130)
    finally:
        progress("")
    click.echo(f"deleted conversations: {freed.deleted.events:,} events, {freed.deleted.bytes:,} bytes")
    click.echo(f"deltas of ended runs: {freed.deltas.events:,} events, {freed.deltas.bytes:,} bytes")
    click.echo(f"old outputs: {freed.outputs:,}")
    click.echo(f"unused images: {freed.images:,}")
    click.echo(f"given back to the file system: {freed.shrunk_bytes:,} bytes")
    if not freed.wal_emptied:
        click.echo("the write-ahead log is in use; the server empties it with its next sweep")


@main.command()
@click.argument("conversation", nargs=-1, required=True)
@click.option("--yes", is_flag=True, help="Do not ask.")
@_server_options
def delete(conversation: tuple[str, ...], yes: bool, url: str, key: str | None) -> None:
    """Delete conversations wholly: events, files, everything. A run at work in one is ended.

    Whoever is connected to one is told (close code 4410). Approvals given for "always" stay.
    """
    from hermes_ws.console.listing import delete as deleted

    names = ", ".join(conversation)
    if not yes:
        click.confirm(f"Delete {names} on {url} for good?", abort=True)
    with _talking_to(url, key) as server:
        gone = {name: deleted(server, name) for name in conversation}
        for name, existed in gone.items():
            click.echo(f"{name}: {'deleted' if existed else 'there is no such conversation'}")
        sys.exit(0 if all(gone.values()) else 1)


@main.command()
@config_option
@click.option("--data", help="Data directory (default ./hermes-ws-data).")
@click.option("--ask", is_flag=True, help="Ask each model something too. That costs a few tokens.")
@click.option("--json", "as_json", is_flag=True, help="One JSON object.")
def doctor(config_file: Path | None, data: str | None, ask: bool, as_json: bool) -> None:
    """Check what the configuration says: the data directory, the port, each agent and its endpoint.

    Says what is wrong and what to do; exit status 1 if something is. A server may be running meanwhile.
    """
    import asyncio

    from hermes_ws.doctor import examine, healthy, report, report_json

    settings = _load(config_file, {"server.data": data}).settings
    sections = asyncio.run(examine(settings, ask=ask))
    click.echo(report_json(sections) if as_json else report(sections))
    sys.exit(0 if healthy(sections) else 1)


@main.command("config")
@config_option
def show_config(config_file: Path | None) -> None:
    """Print the settings in force, and where each came from. Secrets are hidden."""
    rows = _load(config_file, {}).rows()
    widths = [max(len(row[n]) for row in rows) for n in (0, 1)]
    for name, value, origin in rows:
        click.echo(f"{name:<{widths[0]}}  {value:<{min(widths[1], 40)}}  {origin}")


@main.command()
@click.option("--write", "mode", flag_value="write", help="Write the documents anew.")
@click.option("--check", "mode", flag_value="check", help="Compare with the types; a diff and exit 1 if they differ.")
@click.option("--directory", type=click.Path(path_type=Path), default=Path("schemas"), show_default=True)
def schema(mode: str | None, directory: Path) -> None:
    """The protocol written down: JSON Schema, AsyncAPI, TypeScript, Markdown; OpenAPI for HTTP."""
    from hermes_ws.compat.openapi_document import FILE, document
    from hermes_ws.protocol import schema as documents

    beside = {FILE: document()}
    if mode == "write":
        documents.write(directory, beside)
        click.echo(f"wrote {', '.join(sorted({**documents.documents(), **beside}))} to {directory}/")
    elif mode == "check":
        difference = documents.check(directory, beside)
        if difference:
            click.echo(difference)
            raise Failure(f"{directory}/ is not what the types say; run: hermes-ws schema --write")
    else:
        raise click.UsageError("say --write or --check")


if __name__ == "__main__":
    main()
