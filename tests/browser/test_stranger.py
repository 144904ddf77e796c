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


async def test_the_page_in_the_documentation_works_as_it_stands(
    server: Server, new_tab: NewTab, tmp_path: Path
) -> None:
    found = re.search(r"```html\n(.*?)```", (ROOT / "docs" / "clients.md").read_text(), re.DOTALL)
    assert found
    page = found[1].replace("http://127.0.0.1:8642", server.url).replace('"KEY"', f'"{server.key}"')
    assert server.url in page
    assert server.key in page
    tab = await new_tab()
    with served(tmp_path, page.replace('"demo"', f'"{fresh()}"')) as address:
        await tab.page.goto(address)
        await tab.page.get_by_label("Message").fill("/ask Which? | red | blue")
        await tab.page.keyboard.press("Enter")
        await tab.page.get_by_role("button", name="blue").click()
        await expect(tab.page.locator("li")).to_have_text(["/ask Which? | red | blue", "Ask: blue"])
        await tab.page.get_by_label("Message").fill("/say Good bye.")
        await tab.page.keyboard.press("Enter")
        await expect(tab.page.locator("li").last).to_have_text("Good bye.")


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
