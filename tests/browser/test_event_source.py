"""A browser's own ``EventSource``: it follows the log and comes back by itself, with no code of ours in the page."""

from __future__ import annotations

import json
import re
from typing import TYPE_CHECKING

import pytest

from tests.conftest import MakeServer
from tests.wire import Json, fresh

if TYPE_CHECKING:
    from playwright.async_api import Route

    from tests.browser.conftest import NewTab

pytestmark = pytest.mark.asyncio(loop_scope="session")

PAGE = """\
<!doctype html><link rel="icon" href="data:,"><script>
  const seen = [];
  let opened = 0;
  const log = new EventSource("/api/conversations/CONVERSATION/events?exclude=step.started");
  log.onopen = () => { opened += 1; };
  log.onmessage = ({ data, lastEventId }) => { seen.push([lastEventId, data]); };
</script>
"""
OPEN = "[server]\nauth = false\nreconnect_after_ms = 100\ndrain_grace_s = 0.1\n"


@pytest.mark.parametrize(
    ("how", "said"),
    [("killed", "ERR_INCOMPLETE_CHUNKED_ENCODING|ERR_CONNECTION_REFUSED"), ("told to stop", "ERR_CONNECTION_REFUSED")],
)
async def test_it_goes_on_by_itself_when_the_server_was_restarted(
    make_server: MakeServer, new_tab: NewTab, how: str, said: str
) -> None:
    """``said`` is what Chromium has to say of that; no page can help it."""
    but = re.compile(f"Failed to load resource: net::({said})")
    server, tab, conversation = make_server(settings=OPEN), await new_tab(but=but), fresh()

    async def page(route: Route) -> None:
        await route.fulfill(content_type="text/html", body=PAGE.replace("CONVERSATION", conversation))

    await tab.page.route(f"{server.url}/page", page)
    await tab.page.goto(f"{server.url}/page")
    await tab.page.wait_for_function("opened === 1")
    await server.post(conversation, {"type": "run.start", "input": "/think hm\n/stream 200 5\n/say größer"})
    await tab.page.wait_for_function("seen.length > 50")
    if how == "killed":
        server.kill()
    else:
        server.terminate()
        await server.exited()
    again = make_server("--port", str(server.port), data=server.data, settings=OPEN)
    await tab.page.wait_for_function("seen.some(([, data]) => JSON.parse(data).type === 'run.completed')")
    seen: list[tuple[str, str]] = await tab.page.evaluate("seen")
    assert await tab.page.evaluate("opened") >= 2
    frames: list[Json] = [json.loads(data) for _, data in seen]
    page_of_it = await again.get(f"/api/conversations/{conversation}/events", exclude="step.started")
    assert frames == page_of_it["events"]
    assert [last for last, _ in seen] == [str(frame.get("seq", frame.get("to"))) for frame in frames]
    assert any(frame["type"] == "run.recovered" for frame in frames)


async def test_it_gets_the_next_conversation_of_that_name_whole_when_one_is_deleted(
    make_server: MakeServer, new_tab: NewTab
) -> None:
    """Also if it is further by the time that the browser comes back than the one before it was."""
    settings = OPEN.replace("reconnect_after_ms = 100", "reconnect_after_ms = 2000")
    server, tab, conversation = make_server(settings=settings), await new_tab(), fresh()

    async def page(route: Route) -> None:
        await route.fulfill(content_type="text/html", body=PAGE.replace("CONVERSATION", conversation))

    await tab.page.route(f"{server.url}/page", page)
    await server.post(conversation, {"type": "conversation.configure", "config": {"title": "old"}})
    await tab.page.goto(f"{server.url}/page")
    await tab.page.wait_for_function("seen.length === 2")
    async with server.http() as http:
        assert (await http.delete(f"/api/conversations/{conversation}")).status_code == 204
    for title in ("new", "newer", "newest"):
        await server.post(conversation, {"type": "conversation.configure", "config": {"title": title}})
    await tab.page.wait_for_function("seen.some(([, data]) => data.includes('newest'))")
    seen: list[tuple[str, str]] = await tab.page.evaluate("seen")
    assert [json.loads(data) for _, data in seen[2:]] == await server.log(conversation)
    assert [last for last, _ in seen] == ["1", "2", "1", "2", "3", "4"]
