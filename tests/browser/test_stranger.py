"""Pages that we did not write: what somebody who has read the documentation puts together in thirty lines."""

from __future__ import annotations

import re
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from tests.browser.tab import expect
from tests.server.test_mounted import mounted
from tests.wire import Server, fresh

if TYPE_CHECKING:
    from playwright.async_api import Route

    from tests.browser.conftest import NewTab
    from tests.browser.tab import Tab

__all__ = ["mounted"]

pytestmark = pytest.mark.asyncio(loop_scope="session")

ROOT = Path(__file__).parents[2]
PAGE = """\
<!doctype html>
<title>A stranger's page</title><link rel="icon" href="data:,">
<ol id="said"></ol>
<button id="yes" hidden>Yes</button>
<pre id="state"></pre>
<script type="module">
  import { HermesClient } from "SERVER/hermes-ws.js";

  const conversation = new HermesClient({ key: "KEY" }).conversation("CONVERSATION");
  const line = (text) => {
    const item = document.createElement("li");
    item.textContent = text;
    document.querySelector("#said").append(item);
  };
  conversation.tool("colour", { type: "object", properties: { of: { type: "string" } } }, ({ of }) => `${of} is green`);
  conversation.on("interaction", (asked) => {
    if (asked.kind !== "approval") return;
    const button = document.querySelector("#yes");
    button.hidden = false;
    button.onclick = () => conversation.approve(asked);
  });
  for await (const event of conversation.run('/run echo hello\\n/tool colour {"of":"grass"}\\n/say Good bye.')) {
    if (event.type === "tool.completed") line(event.output);
    if (event.type === "message.completed") line(event.text);
    if (event.type === "run.completed") line("the end");
  }
  document.querySelector("#state").textContent = conversation.state.items.map((item) => item.type).join(" ");
</script>
"""
ASKED = """window.asked = [];
new MutationObserver((records) => asked.push(...records.flatMap((record) => [...record.addedNodes].map(String))))
  .observe(document.querySelector("main"), { childList: true });"""
"""From now on, what is added to the questions of a page is kept."""
WITH_TICKETS = """\
<!doctype html>
<title>A page that never has the key</title><link rel="icon" href="data:,">
<output></output>
<script type="module">
  import { HermesClient } from "SERVER/hermes-ws.js";

  const getTicket = async ({ conversation }) => (await (await fetch(`/ticket/${conversation}`)).json()).ticket;
  const conversation = new HermesClient({ getTicket }).conversation("CONVERSATION");
  const { output } = await conversation.run("hi").done;
  document.querySelector("output").textContent = output;
</script>
"""


@contextmanager
def served(directory: Path, page: str) -> Iterator[str]:
    """A page at another origin: its address."""
    (directory / "index.html").write_text(page)
    quiet = type("Quiet", (SimpleHTTPRequestHandler,), {"log_message": lambda *_: None})
    with ThreadingHTTPServer(("127.0.0.1", 0), partial(quiet, directory=str(directory))) as web:
        thread = threading.Thread(target=web.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        try:
            yield f"http://127.0.0.1:{web.server_port}/index.html"
        finally:
            web.shutdown()
            thread.join()


def filled_in(page: str, server: Server) -> str:
    return page.replace("SERVER", server.url).replace("KEY", server.key).replace("CONVERSATION", fresh())


async def test_a_page_of_another_origin_imports_the_client_and_just_works(
    server: Server, new_tab: NewTab, tmp_path: Path
) -> None:
    assert len(PAGE.splitlines()) <= 30
    tab = await new_tab()
    with served(tmp_path, filled_in(PAGE, server)) as address:
        await tab.page.goto(address)
        await tab.page.get_by_role("button", name="Yes").click()
        await expect(tab.page.locator("li")).to_have_text(["hello", "grass is green", "Good bye.", "the end"])
        await expect(tab.page.locator("#state")).to_have_text("message tool_call tool_call message")


def documented(server: Server, key: str) -> str:
    """The page of the documentation, with an address, a key and a conversation of its own."""
    page = _snippet("html")
    assert len(page.splitlines()) <= 30
    for old, new in (("http://127.0.0.1:8642", server.url), ('"KEY"', f'"{key}"'), ('"demo"', f'"{fresh()}"')):
        assert old in page
        page = page.replace(old, new)
    return page


def _snippet(language: str, having: str = "") -> str:
    text = (ROOT / "docs" / "clients.md").read_text()
    found: list[str] = re.findall(rf"^```{language}\n(.*?)^```", text, re.DOTALL | re.MULTILINE)
    return next(snippet for snippet in found if having in snippet)


async def _say(tab: Tab, text: str) -> None:
    await tab.page.get_by_label("Message").fill(text)
    await tab.page.keyboard.press("Enter")


async def test_the_page_in_the_documentation_works_as_it_stands(
    server: Server, new_tab: NewTab, tmp_path: Path
) -> None:
    tab = await new_tab()
    with served(tmp_path, documented(server, server.key)) as address:
        await tab.page.goto(address)
        await _say(tab, "/ask Which? | red | blue")
        await tab.page.get_by_role("button", name="blue").click()
        await expect(tab.page.locator("li")).to_have_text(["/ask Which? | red | blue", "Ask: blue"])
        await _say(tab, "/ask Why?")
        await expect(tab.page.locator("main")).to_contain_text("Why?")
        await _say(tab, "because")
        await expect(tab.page.locator("li").last).to_have_text("Ask: because")
        await _say(tab, "/say Good bye.")
        await expect(tab.page.locator("li").last).to_have_text("Good bye.")


async def test_its_buttons_keep_the_focus_and_no_call_of_a_client_is_a_question(
    server: Server, new_tab: NewTab, tmp_path: Path
) -> None:
    tab, page = await new_tab(), documented(server, server.key)
    conversation = next(iter(re.findall(r'conversation\("([^"]+)"\)', page)))
    with served(tmp_path, page) as address:
        await tab.page.goto(address)
        await _say(tab, "/ask Which? | red | blue")
        await tab.page.get_by_role("button", name="red").focus()
        await server.post(conversation, {"type": "run.steer", "text": "hurry"})
        await server.post(conversation, {"type": "run.start", "input": "/tool slow {}"})
        await tab.page.evaluate("new Promise((drawn) => requestAnimationFrame(() => requestAnimationFrame(drawn)))")
        await expect(tab.page.get_by_role("button", name="red")).to_be_focused()
        async with server.socket(conversation) as other:
            tool = {"name": "slow", "description": "Slow.", "parameters": {"type": "object"}}
            await other.ok("client.update", client_id="other", tools=[tool])
            await tab.page.evaluate(ASKED)
            await tab.page.keyboard.press("Enter")
            while (event := await other.recv()).get("kind") != "client_tool":
                pass
            await other.ok("interaction.reply", interaction_id=event["interaction_id"], content={"output": "done"})
            await expect(tab.page.locator("li").last).to_have_text("slow: done")
            assert await tab.page.evaluate("asked") == []


async def test_it_says_that_the_key_is_wrong_and_that_a_run_was_refused(
    server: Server, new_tab: NewTab, tmp_path: Path
) -> None:
    wrong, right = await new_tab(), await new_tab()
    with served(tmp_path, documented(server, "wrong")) as address:
        await wrong.page.goto(address)
        await expect(wrong.page.get_by_role("status")).to_have_text("closed this key is not known here")
    with served(tmp_path, documented(server, server.key)) as address:
        await right.page.goto(address)
        await expect(right.page.get_by_role("status")).to_have_text("live")
        await _say(right, "")
        await expect(right.page.get_by_role("status")).to_contain_text("input")


async def test_a_kept_client_id_outlives_a_reload_and_is_no_other_page_s(new_tab: NewTab, tmp_path: Path) -> None:
    tab = await new_tab()
    snippet = _snippet("js", "navigator.locks").partition("const client =")[0]
    page = f'<link rel="icon" href="data:,"><output></output><script type="module">{snippet}'
    with served(tmp_path, f'{page}document.querySelector("output").textContent = clientId;</script>') as address:
        await tab.page.goto(address)
        output = tab.page.locator("output")
        await expect(output).not_to_be_empty()
        mine = await output.text_content() or ""
        await tab.page.reload()
        await expect(output).to_have_text(mine)
        async with tab.page.expect_popup() as opened:
            await tab.page.evaluate("window.open(location.href)")
        copy = await opened.value
        await expect(copy.locator("output")).not_to_be_empty()
        assert await copy.locator("output").text_content() != mine


async def test_a_page_asks_its_own_server_for_a_ticket_and_never_has_the_key(
    server: Server, new_tab: NewTab, tmp_path: Path
) -> None:
    tab, page = await new_tab(), filled_in(WITH_TICKETS, server)
    assert server.key not in page

    async def backend(route: Route) -> None:
        conversation = route.request.url.rpartition("/")[2]
        async with server.http() as http:
            ticket = await http.post("/api/tickets", json={"conversation": conversation, "principal": "ann"})
        await route.fulfill(status=200, content_type="application/json", body=ticket.text)

    with served(tmp_path, page) as address:
        await tab.page.route("**/ticket/*", backend)
        await tab.page.goto(address)
        await expect(tab.page.locator("output")).to_contain_text("You said: “hi”")


async def test_the_example_page_works_where_the_app_is_mounted_below_a_prefix(mounted: Server, new_tab: NewTab) -> None:
    tab = await new_tab()
    await tab.open(mounted.url, mounted.key, fresh())
    await tab.say("hi")
    await expect(tab.answer).to_contain_text("You said: “hi”")
