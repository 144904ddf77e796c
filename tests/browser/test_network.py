"""The example page when the server dies, the network is pulled, or the line is cut: exactly right afterwards."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from tests.browser.tab import LINE_LOST, LONGEST_TASK_MS, eventually, expect, snapshot, wanted
from tests.client.proxy import Proxy
from tests.conftest import MakeServer
from tests.wire import Server, fresh

if TYPE_CHECKING:
    from tests.browser.conftest import NewTab
    from tests.browser.tab import Tab

pytestmark = pytest.mark.asyncio(loop_scope="session")


async def test_a_server_that_is_killed_and_comes_back_in_the_middle_of_a_run_goes_on_with_it(
    make_server: MakeServer, new_tab: NewTab
) -> None:
    server, tab, conversation = make_server(), await new_tab(but=LINE_LOST), fresh()
    await tab.open(server.url, server.key, conversation)
    await tab.say("/think First.\n/stream 300 3\n/say the end")
    await expect(tab.answer).to_contain_text("0 1 2 3")
    server.kill()
    await expect(tab.page.locator("#line")).to_contain_text("waiting")
    await tab.picture("server-gone")
    again = make_server("--port", str(server.port), data=server.data)
    await expect(tab.answer).to_have_text("the end")
    await tab.is_live()
    await tab.is_idle()
    assert await tab.shown() == wanted(await snapshot(again, conversation))
    assert [event["type"] for event in await again.log(conversation)].count("run.recovered") == 1


async def test_a_question_outlives_the_server_and_its_answer_the_line(make_server: MakeServer, new_tab: NewTab) -> None:
    server, tab, conversation = make_server(), await new_tab(but=LINE_LOST), fresh()
    await tab.open(server.url, server.key, conversation)
    await tab.say("/ask Which? | red | blue")
    await expect(tab.question).to_be_visible()
    server.kill()
    await expect(tab.page.locator("#line")).to_contain_text("waiting")
    await tab.press("red")
    again = make_server("--port", str(server.port), data=server.data)
    await expect(tab.card("Ask").locator("[data-slot=output]")).to_have_text("red")
    await tab.is_idle()
    assert await tab.shown() == wanted(await snapshot(again, conversation))


async def test_a_network_that_is_pulled_during_a_stream_leaves_the_page_exactly_right(
    server: Server, new_tab: NewTab
) -> None:
    tab, conversation = await new_tab(but=LINE_LOST), fresh()
    async with Proxy.before(server.port) as network:
        await tab.open(network.url, server.key, conversation)
        await tab.say("/stream 1000 2\n/say the end")
        await expect(tab.answer).to_contain_text("0 1 2 3")
        network.refusing = True
        network.cut_all()
        await expect(tab.page.locator("#line")).to_contain_text("waiting")
        await tab.page.context.set_offline(True)
        await _has_ended(server, conversation)
        assert (await tab.shown())[-1]["text"] != "the end"
        network.refusing = False
        await tab.page.context.set_offline(False)  # it comes back at once, however long it was to wait
        await tab.is_live()
        await tab.is_idle()
        assert await tab.shown() == wanted(await snapshot(server, conversation))
        assert (await tab.shown())[-1]["text"] == "the end"


async def test_what_was_typed_is_there_to_be_seen_until_the_server_has_it_once(server: Server, new_tab: NewTab) -> None:
    tab, conversation = await new_tab(but=LINE_LOST), fresh()
    typed = tab.page.get_by_label("Message")
    async with Proxy.before(server.port) as network:
        await tab.open(network.url, server.key, conversation)
        network.passing.clear()
        await tab.say("/say the end")
        await expect(typed).not_to_be_editable()
        await tab.page.keyboard.press("Enter")
        await expect(typed).to_have_value("/say the end")
        network.passing.set()
        await expect(tab.answer).to_have_text("the end")
        await expect(typed).to_be_editable()
        await expect(typed).to_be_empty()
    await expect(tab.page.locator("main > .user")).to_have_count(1)


async def test_a_line_on_which_nothing_is_heard_any_more_is_given_up_and_made_anew(
    server: Server, new_tab: NewTab
) -> None:
    tab, conversation = await new_tab(but=LINE_LOST), fresh()
    async with Proxy.before(server.port) as network:
        await tab.page.clock.install()
        await tab.open(network.url, server.key, conversation)
        await tab.say("/stream 1000 2\n/say the end")
        await expect(tab.answer).to_contain_text("0 1 2 3")
        network.passing.clear()
        await _has_ended(server, conversation)
        await expect(tab.page.locator("#line")).to_have_text("live")
        before = network.connections
        await tab.page.clock.fast_forward(60_000)
        await expect(tab.page.locator("#line")).not_to_have_text("live")
        network.passing.set()
        await tab.is_live()
        await tab.is_idle()
        assert network.connections > before
        assert await tab.shown() == wanted(await snapshot(server, conversation))


async def test_five_thousand_deltas_keep_no_page_from_answering_one_by_one_or_all_at_once(
    server: Server, new_tab: NewTab
) -> None:
    longest_ms: list[float] = []
    while not longest_ms or longest_ms[-1] > LONGEST_TASK_MS:
        assert len(longest_ms) < 3, f"{longest_ms}: on a busy machine any task may be long, but not every time"
        longest_ms.append(await _longest_task_of_five_thousand_deltas(server, await new_tab(), await new_tab()))


async def _longest_task_of_five_thousand_deltas(server: Server, near: Tab, far: Tab) -> float:
    """``near`` is told one by one, ``far`` all at once."""
    conversation = fresh()
    async with Proxy.before(server.port) as network:
        await near.open(server.url, server.key, conversation)
        await far.open(network.url, server.key, conversation)
        network.passing.clear()
        await near.say("/stream 5000 1")
        await expect(near.answer).to_contain_text(" 4999 ", timeout=30_000)
        await near.is_idle()
        deltas = [event for event in await server.log(conversation) if event["type"] == "message.delta"]
        assert len(deltas) > 2500, "they were merged; this says little"
        assert await far.shown() == []
        network.passing.set()
        right = wanted(await snapshot(server, conversation))
        for tab in (near, far):
            await eventually(tab.shown, right)
        longest_ms = max([*await near.long_tasks_ms(), *await far.long_tasks_ms()], default=0)
        await far.leave()
    return longest_ms


async def test_cuts_anywhere_are_not_seen(server: Server, new_tab: NewTab) -> None:
    tab, conversation = await new_tab(but=LINE_LOST), fresh()
    async with Proxy.before(server.port) as network:
        await tab.open(network.url, server.key, conversation)
        network.cut_after, network.cuts, network.seed = (2_000, 20_000), 8, 3
        network.cut_all()
        await tab.is_live()
        await tab.say("/think Hm.\n/stream 1500 1\n/run echo hello\n/say the end")
        await tab.press("Allow once")
        await expect(tab.answer).to_have_text("the end")
        await tab.is_idle()
        assert network.cut > 2
    assert await tab.shown() == wanted(await snapshot(server, conversation))


async def test_an_answer_that_comes_too_late_is_no_error_and_shows_whose_counts(
    server: Server, new_tab: NewTab
) -> None:
    one, other, conversation = await new_tab(), await new_tab(), fresh()
    async with Proxy.before(server.port) as network:
        await one.open(server.url, server.key, conversation)
        await other.open(network.url, server.key, conversation)
        await one.say("/run echo hello")
        for tab in (one, other):
            await expect(tab.question).to_be_visible()
        network.passing.clear()
        await one.press("Deny")
        await other.press("Allow once")
        await one.is_idle()
        network.passing.set()
        await expect(one.card("Terminal")).to_contain_text("answered deny by you")
        await expect(other.card("Terminal")).to_contain_text("answered deny by owner")
        for tab in (one, other):
            await expect(tab.question).to_have_count(0)
            await expect(tab.notice).to_be_empty()
        assert await one.shown() == await other.shown() == wanted(await snapshot(server, conversation))
        await other.leave()


async def _has_ended(server: Server, conversation: str) -> None:
    """Wait until no run is active, by the server's word."""

    async def run() -> object:
        return (await snapshot(server, conversation))["run"]

    await eventually(run, None)
