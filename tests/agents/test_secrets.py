"""Where a secret of the configuration comes from, and what is said when it is not there."""

from __future__ import annotations

from pathlib import Path

import pytest

from hermes_ws.errors import SettingsError
from hermes_ws.secret_values import resolve

SECRET = "sk-canary-5a6b7c8d"


def test_a_secret_is_written_out_or_looked_up(tmp_path: Path) -> None:
    (tmp_path / "key").write_text(f"  {SECRET}\r\n")
    assert resolve(SECRET, "api_key") == SECRET
    assert resolve("user:password", "api_key") == "user:password"
    assert resolve("env:THE_KEY", "api_key", {"THE_KEY": f"{SECRET}\n"}) == SECRET
    assert resolve(f"file:{tmp_path}/key", "api_key") == SECRET


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (None, "cannot be read: No such file"),
        (b"", "which is empty"),
        (b"\n \n", "which is empty"),
        (b"\xff\xfe", "it is no file of text"),
        (b"x" * 70_000, "which is too large"),
    ],
)
def test_a_file_without_a_secret_is_told_as_it_is(tmp_path: Path, content: bytes | None, said: str) -> None:
    if content is not None:
        (tmp_path / "key").write_bytes(content)
    with pytest.raises(SettingsError, match="api_key") as wrong:
        resolve(f"file:{tmp_path}/key", "api_key")
    assert said in str(wrong.value)
    assert SECRET not in str(wrong.value)


@pytest.mark.parametrize(
    ("value", "said"),
    [
        ("env:THE_KEY", "THE_KEY, which is empty"),
        ("env:ANOTHER", "ANOTHER, which is not set"),
        ("env:", "(no name)"),
        ("file:", "cannot be read"),
        ("file:/", "cannot be read: Is a directory"),
        ("file:\0", "cannot be read"),
    ],
)
def test_a_secret_that_is_not_there_is_told_with_where_it_should_be(value: str, said: str) -> None:
    with pytest.raises(SettingsError) as wrong:
        resolve(value, "api_key", {"THE_KEY": ""})
    assert said in str(wrong.value)
