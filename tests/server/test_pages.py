"""What browsers load: the JavaScript client and the example page, without a key, with a policy of their own."""

from __future__ import annotations

import base64
import hashlib
import re
from pathlib import Path

import pytest

from hermes_ws.errors import CommandError
from hermes_ws.transports.pages import EXAMPLE, LIBRARY, content_security_policy, find
from tests.wire import Server

ROOT = Path(__file__).parents[2]
PAGES = ["/hermes-ws.js", "/example"]


@pytest.mark.parametrize(("path", "kind"), [("/hermes-ws.js", "text/javascript"), ("/example", "text/html")])
async def test_they_need_no_key_and_say_what_they_are(server: Server, path: str, kind: str) -> None:
    async with server.http(key="") as http:
        answer = await http.get(path)
        head = await http.head(path)
    assert answer.status_code == head.status_code == 200
    assert answer.headers["content-type"] == f"{kind}; charset=utf-8"
    assert answer.headers["x-content-type-options"] == "nosniff"
    assert (head.content, head.headers["etag"]) == (b"", answer.headers["etag"])


@pytest.mark.parametrize("path", PAGES)
async def test_whoever_has_them_asks_whether_they_are_still_the_same(server: Server, path: str) -> None:
    async with server.http(key="") as http:
        first = await http.get(path)
        same = await http.get(path, headers={"If-None-Match": f'"other", W/{first.headers["etag"]}'})
        other = await http.get(path, headers={"If-None-Match": '"other"'})
    assert first.headers["cache-control"] == "no-cache"
    assert (same.status_code, same.content, same.headers["etag"]) == (304, b"", first.headers["etag"])
    assert (other.status_code, other.content) == (200, first.content)


@pytest.mark.parametrize(
    ("origin", "status"),
    [("http://localhost:3000", 200), ("http://127.0.0.1:5173", 200), ("https://evil.example", 403)],
)
async def test_pages_that_are_let_in_may_import_the_client(server: Server, origin: str, status: int) -> None:
    async with server.http(key="", headers={"Origin": origin}) as http:
        answer = await http.get("/hermes-ws.js")
    assert answer.status_code == status
    assert answer.headers.get("access-control-allow-origin") == (origin if status == 200 else None)
    assert "origin" in answer.headers["vary"].lower()


async def test_the_page_may_run_its_own_script_wear_its_own_style_and_talk_to_us_and_nothing_else(
    server: Server,
) -> None:
    async with server.http(key="") as http:
        answer = await http.get("/example")
        library = await http.get("/hermes-ws.js")
    [script] = re.findall(r'<script type="module">(.*?)</script>', answer.text, re.DOTALL)
    [style] = re.findall(r"<style>(.*?)</style>", answer.text, re.DOTALL)
    policy = dict(part.strip().split(" ", 1) for part in answer.headers["content-security-policy"].split(";"))
    assert policy == {
        "default-src": "'none'",
        "script-src": f"'self' {_hash(script)}",
        "style-src": _hash(style),
        "connect-src": "'self'",
        "img-src": "data:",
        "base-uri": "'none'",
        "form-action": "'none'",
        "frame-ancestors": "'none'",
    }
    assert library.headers["content-security-policy"] == "default-src 'none'; frame-ancestors 'none'"


def _hash(text: str) -> str:
    return f"'sha256-{base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()}'"


def test_a_style_in_an_attribute_or_a_second_script_is_not_forgotten() -> None:
    policy = content_security_policy(b'<script>1</script><style media="all">a</style><script type="module">2</script>')
    assert f"script-src 'self' {_hash('1')} {_hash('2')}; style-src {_hash('a')};" in policy


@pytest.mark.parametrize("end", ["\r\n", "\r"])
def test_a_checkout_with_other_line_ends_serves_a_page_that_may_run_its_script(end: str) -> None:
    page = f"<script>{end}go();{end}</script>".encode()
    assert f"script-src 'self' {_hash(chr(10) + 'go();' + chr(10))};" in content_security_policy(page)


def test_an_installation_without_the_files_says_what_is_missing_and_what_to_do() -> None:
    with pytest.raises(CommandError, match=r"without its missing\.js; install the package anew") as caught:
        find("missing.js")
    assert caught.value.code == "not_found"


@pytest.mark.parametrize("name", [EXAMPLE, LIBRARY])
def test_a_checkout_has_them_among_the_examples_and_a_wheel_beside_what_serves_them(name: str) -> None:
    assert find(name) == ROOT / "examples" / "js-client" / name
    forced = f'"examples/js-client/{name}" = "hermes_ws/web/js-client/{name}"'
    assert forced in (ROOT / "pyproject.toml").read_text()


def test_the_example_is_short_and_makes_no_markup_of_what_it_is_told() -> None:
    page = find(EXAMPLE).read_text()
    assert len(page.splitlines()) < 150
    assert max(map(len, page.splitlines())) <= 120
    for dangerous in ("innerHTML", "outerHTML", "insertAdjacentHTML", "document.write", "eval("):
        assert dangerous not in page


@pytest.mark.parametrize("path", ["/ws", "/ws/demo", "/ws/new?plain=1"])
async def test_whoever_looks_at_the_address_of_a_socket_is_told_that_it_is_one(server: Server, path: str) -> None:
    async with server.http(key="") as http:
        answer = await http.get(path)
        nothing = await http.get("/wss")
    assert (answer.status_code, answer.headers["upgrade"]) == (426, "websocket")
    assert "WebSocket" in answer.json()["message"]
    assert nothing.status_code == 404


async def test_the_welcome_and_the_root_say_where_they_are(server: Server) -> None:
    assert f"{server.url}/example#key={server.key}&c=demo" in server.output
    async with server.http(key="") as http:
        root = (await http.get("/")).text
    assert "/hermes-ws.js" in root
    assert "/example#key=KEY" in root
