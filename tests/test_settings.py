"""Settings: what wins, where it came from, and errors that name the setting."""

from __future__ import annotations

from pathlib import Path

import msgspec
import pytest

from hermes_ws.errors import SettingsError
from hermes_ws.settings import Settings, load, secret_values


def test_later_sources_win_and_each_value_knows_its_source(tmp_path: Path) -> None:
    file = tmp_path / "x.toml"
    file.write_text('[server]\nhost = "::1"\nport = 1\n[tools]\nfetch_bytes = 5\n')
    environment = {"API_SERVER_PORT": "2", "HERMES_WS_PORT": "3", "HERMES_WS_TOOLS_DEFAULT": "a, b", "PATH": "/bin"}
    found = load(file=file, environment=environment, flags={"server.data": "/d", "server.host": None})
    server = found.settings.server
    assert (server.host, server.port, server.data) == ("::1", 3, "/d")
    assert found.settings.tools.fetch_bytes == 5
    assert found.settings.tools.default == ["a", "b"]
    assert found.origins["server.port"] == "environment HERMES_WS_PORT"
    assert found.origins["server.host"] == f"file {file}"
    assert found.origins["server.data"] == "flag"


def test_the_names_that_people_know_work() -> None:
    environment = {
        "API_SERVER_HOST": "127.0.0.2",
        "API_SERVER_PORT": "9",
        "API_SERVER_KEY": "secret-secret",
        "API_SERVER_CORS_ORIGINS": "https://a.example,https://b.example",
        "API_SERVER_MODEL_NAME": "mine",
    }
    server = load(file=None, environment=environment).settings.server
    assert (server.host, server.port, server.key, server.model_name) == ("127.0.0.2", 9, "secret-secret", "mine")
    assert server.allowed_origins == ["https://a.example", "https://b.example"]


def test_secrets_are_not_shown() -> None:
    rows = load(file=None, environment={"API_SERVER_KEY": "secret-secret"}).rows()
    assert ("server.key", "(hidden)", "environment API_SERVER_KEY") in rows
    assert not any("secret-secret" in "".join(row) for row in rows)


def test_the_key_of_secrets_is_not_shown() -> None:
    rows = load(file=None, environment={"HERMES_WS_SECRETS_KEY": "0123456789abcdef"}).rows()
    assert ("secrets.key", "(hidden)", "environment HERMES_WS_SECRETS_KEY") in rows


def test_what_is_kept_from_being_shown_is_what_is_secret_for_certain(tmp_path: Path) -> None:
    file, kept = tmp_path / "x.toml", tmp_path / "kept"
    kept.write_text("from-a-file\n")
    file.write_text(
        '[agents.a]\nkind = "llm"\napi_key = "an-api-key"\nmodel = "qwen"\n'
        f'headers = {{ X-Title = "Hermes", X-Org = "file:{kept}" }}\n'
        '[mcp_servers.b]\ncommand = "x"\n'
        'env = { NODE_ENV = "production", GITHUB_TOKEN = "a-token", LOST_KEY = "env:NO" }\n'
        '[mcp_servers.c]\nurl = "https://x.example"\nheaders = { Authorization = "Bearer y" }\n'
    )
    settings = load(file=file, environment={}).settings
    assert secret_values(settings) == {"an-api-key", "from-a-file", "a-token", "Bearer y"}


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("[sever]\nport = 1", r"no section \[sever\]; did you mean 'server'"),
        ("[server]\nprot = 1", r"\[server\] has no setting 'prot'; did you mean 'port'"),
        ("[server]\nport = 'x'", r"server.port is wrong: Expected `int`, got `str` \(from file"),
        ("[server]\nport = 70000", r"server.port is wrong: Expected `int` <= 65535"),
        ("[approvals]\nceiling = 'loose'", r"approvals.ceiling is wrong: Invalid enum value 'loose'"),
        ("not toml", "is not TOML"),
        ("server = 1", r"no section \[server\]"),
    ],
)
def test_a_wrong_file_is_refused_with_the_setting_it_is_about(tmp_path: Path, text: str, message: str) -> None:
    file = tmp_path / "x.toml"
    file.write_text(text)
    with pytest.raises(SettingsError, match=message):
        load(file=file, environment={})


def test_a_file_that_is_not_there_is_refused(tmp_path: Path) -> None:
    with pytest.raises(SettingsError, match="cannot be read: No such file"):
        load(file=tmp_path / "none.toml", environment={})


@pytest.mark.parametrize(
    ("variable", "value", "message"),
    [
        ("HERMES_WS_PROT", "1", r"HERMES_WS_PROT names no setting"),
        ("HERMES_WS_PORT", "x", r"HERMES_WS_PORT is wrong"),
        ("API_SERVER_PORT", "-1", r"API_SERVER_PORT is wrong"),
        ("HERMES_WS_TOOLS_FETCH_BITES", "1", r"did you mean HERMES_WS_TOOLS_FETCH_BYTES"),
    ],
)
def test_a_wrong_variable_is_refused_by_its_name(variable: str, value: str, message: str) -> None:
    with pytest.raises(SettingsError, match=message):
        load(file=None, environment={variable: value})


@pytest.mark.parametrize(
    ("text", "name"),
    [
        ("[limits]\npage_events = 0", "limits.page_events"),
        ("[limits]\nwait_ms = -1", "limits.wait_ms"),
        ("[runs]\nconcurrent = 0", "runs.concurrent"),
        ("[readers]\nheartbeat_s = 0", "readers.heartbeat_s"),
        ("[readers]\nstall_s = inf", "readers.stall_s"),
        ("[readers]\nstall_s = nan", "readers.stall_s"),
        ("[conversations]\nidle_s = -0.1", "conversations.idle_s"),
        ("[sessions]\ninteraction_timeout_s = -5", "sessions.interaction_timeout_s"),
        ("[tools]\nterminal_timeout_s = -5.0", "tools.terminal_timeout_s"),
        ("[server]\nticket_ttl_s = 0", "server.ticket_ttl_s"),
        ("[log]\nlevel = 'loud'", "log.level"),
    ],
)
def test_a_number_that_makes_no_sense_is_refused_by_its_name(tmp_path: Path, text: str, name: str) -> None:
    file = tmp_path / "x.toml"
    file.write_text(text)
    with pytest.raises(SettingsError, match=rf"^{name} is wrong: .* \(from file"):
        load(file=file, environment={})


def test_every_number_has_a_range() -> None:
    for section in msgspec.structs.fields(Settings):
        for field in msgspec.structs.fields(section.type) if isinstance(section.type, type) else ():
            if isinstance(field.default, (int, float)) and not isinstance(field.default, bool):
                assert hasattr(field.type, "__metadata__"), f"{section.name}.{field.name}"


@pytest.mark.parametrize("variable", ["HERMES_WS_LIMITS_PAGE_EVENTS", "HERMES_WS_RUNS_CONCURRENT"])
def test_a_variable_out_of_range_is_refused_too(variable: str) -> None:
    with pytest.raises(SettingsError, match=f"{variable} is wrong: Expected `int` >= 1"):
        load(file=None, environment={variable: "0"})
