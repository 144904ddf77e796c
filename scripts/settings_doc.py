"""Write ``docs/settings.md`` from the settings' types: ``python -m scripts.settings_doc [--check]``."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgspec

from hermes_ws.protocol.schema.docstrings import of_class, of_field
from hermes_ws.settings import KNOWN_NAMES, SECRET, Settings

PAGE = Path(__file__).parents[1] / "docs" / "settings.md"

HEAD = """\
<!-- Generated from the settings' types by `make schemas`; do not edit. -->

# Settings

Every setting can be given in a TOML file (`hermes-ws serve --config FILE`, or `HERMES_WS_CONFIG`), in the environment,
and some by flag. Later sources win: defaults, file, the names known from hermes-agent, `HERMES_WS_…`, flags.
`hermes-ws config` prints what is in force and where each value came from; secrets are hidden. A setting that does not
exist is refused with the nearest one that does.

```toml
[server]
port = 9000
data = "/var/lib/hermes-ws"

[approvals]
ceiling = "ask"     # clients cannot turn approvals off

[tools]
default = ["builtin:read_file", "builtin:list_files", "builtin:search_files", "builtin:clarify"]
```

In the environment `[tools] fetch_bytes` is `HERMES_WS_TOOLS_FETCH_BYTES`; `[server]` may be left out:
`HERMES_WS_PORT`. Lists are separated by commas.
"""


def page() -> str:
    """The whole page."""
    return "\n".join([HEAD, *_known_names(), *_sections()]).rstrip() + "\n"


def _known_names() -> Iterator[str]:
    yield "| known name | setting |\n| --- | --- |"
    yield from (f"| `{variable}` | `{name}` |" for variable, name in KNOWN_NAMES.items())
    yield ""


def _sections() -> Iterator[str]:
    for section in msgspec.structs.fields(Settings):
        value = getattr(Settings(), section.name)
        if not isinstance(value, msgspec.Struct):
            yield f"## `[{section.name}.NAME]`\n\n{of_field(Settings, section.name)}\n"
            yield f"Default: `{_shown(value)}`\n"
            continue
        yield f"## `[{section.name}]`\n\n{of_class(type(value))}\n"
        yield "| setting | default | what |\n| --- | --- | --- |"
        for field in msgspec.structs.fields(value):
            default = "–" if f"{section.name}.{field.name}" in SECRET else f"`{_shown(getattr(value, field.name))}`"
            yield f"| `{field.name}` | {default} | {of_field(type(value), field.name)} |"
        yield ""


def _shown(value: Any) -> str:
    return msgspec.json.encode(value).decode()


def main() -> int:
    if "--check" in sys.argv:
        if PAGE.read_text() == page():
            return 0
        sys.stderr.write("docs/settings.md is not what the types say; run: make schemas\n")
        return 1
    PAGE.write_text(page())
    return 0


if __name__ == "__main__":
    sys.exit(main())
