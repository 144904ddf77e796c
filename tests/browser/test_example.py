"""The example page in a real browser, against a real server: what a person does with it, and what they see."""

from __future__ import annotations

import asyncio
import json
import re
from typing import TYPE_CHECKING

import pytest

from tests.browser.tab import LONGEST_TASK_MS, eventually, expect, snapshot, wanted
from tests.conftest import MakeServer
from tests.mcp.conftest import official, official_process
from tests.mcp.desk import AUTO, LOCAL, call, crm
from tests.mcp.running import OfficialServer
from tests.wire import Server, fresh, soon

if TYPE_CHECKING:
    from tests.browser.conftest import NewTab

__all__ = ["official", "official_process"]

pytestmark = pytest.mark.asyncio(loop_scope="session")


async def test_a_whole_run_is_shown_as_the_server_has_it(server: Server, new_tab: NewTab) -> None:
    tab, conversation = await new_tab(), fresh()
    await tab.open(server.url, server.key, conversation)
    script = [
        "/think A look around.",
        "/run printf 'one\\ntwo\\n'",
        "/ask Which? | red | blue",
        "/ask Why?",
        "/stream 300",
    ]
    await tab.say("\n".join(script))
    await expect(tab.question).to_contain_text("Allow Terminal?")
    await tab.picture("approval")
    await tab.press("Allow once")
    await expect(tab.question).to_contain_text("Which?")
    await tab.picture("choice")
    await tab.press("blue")
    await tab.question.get_by_label("Answer").fill("because")
    await tab.picture("question")
    await tab.press("Answer")
    await expect(tab.answer).to_have_text(" ".join(map(str, range(300))) + " ")
    await tab.is_idle()
    await tab.picture("whole-run")
    assert await tab.shown() == wanted(await snapshot(server, conversation))
    outputs = [card["output"] for card in await tab.shown() if "output" in card]
    assert outputs == ["one\ntwo\n", "blue", "because"]


async def test_reasoning_is_folded_away_until_somebody_wants_it(server: Server, new_tab: NewTab) -> None:
    tab = await new_tab()
    await tab.open(server.url, server.key, fresh())
    await tab.say("/think They want to know.")
    await tab.is_idle()
    thought = tab.page.get_by_text("They want to know.").last
    await expect(thought).to_be_hidden()
    await tab.page.get_by_text("Reasoning").click()
    await expect(thought).to_be_visible()


async def test_markup_is_shown_as_what_it_is(server: Server, new_tab: NewTab) -> None:
    tab = await new_tab()
    await tab.open(server.url, server.key, fresh())
    await tab.say("/ask <b>Which?</b> | <i>red</i> | blue\n/say <img src=x onerror=alert(1)>")
    await tab.press("<i>red</i>")
    await expect(tab.answer).to_have_text("<img src=x onerror=alert(1)>")
    await expect(tab.page.locator("main img, main i, main b b")).to_have_count(0)


async def test_each_option_shows_the_rule_it_would_remember_and_a_refusal_is_told(
    server: Server, new_tab: NewTab
) -> None:
    tab = await new_tab()
    await tab.open(server.url, server.key, fresh())
    await tab.say("/run date")
    always = tab.question.get_by_role("button", name="Always allow")
    await expect(always).to_contain_text('builtin:terminal {"command":"date"}')
    await tab.press("Deny")
    await expect(tab.card("Terminal")).to_contain_text("denied")
    await expect(tab.card("Terminal")).to_contain_text("answered deny by you")
    await expect(tab.question).to_have_count(0)


async def test_arguments_can_be_changed_before_they_are_allowed(server: Server, new_tab: NewTab) -> None:
    tab = await new_tab()
    await tab.open(server.url, server.key, fresh())
    await tab.say("/run echo before")
    arguments = tab.question.get_by_label("Arguments")
    await arguments.fill('{"command": ')
    await tab.press("Allow once")
    await expect(tab.notice).to_contain_text("JSON")
    await arguments.fill('{"command": "echo after"}')
    await tab.press("Allow once")
    await expect(tab.notice).to_be_hidden()
    await expect(tab.card("Terminal").locator("[data-slot=output]")).to_have_text("after\n")


async def test_a_tool_s_output_is_there_while_it_runs_and_stop_ends_it(server: Server, new_tab: NewTab) -> None:
    tab = await new_tab()
    await tab.open(server.url, server.key, fresh())
    await tab.say("/run echo begun; sleep 60")
    await tab.press("Allow once")
    await expect(tab.card("Terminal")).to_contain_text("executing")
    await expect(tab.card("Terminal").locator("[data-slot=output]")).to_have_text("begun\n")
    await tab.press("Stop")
    await expect(tab.card("Terminal")).to_contain_text("cancelled")
    await tab.is_idle()


async def test_what_a_stopped_run_had_said_stays(server: Server, new_tab: NewTab) -> None:
    tab, conversation = await new_tab(), fresh()
    await tab.open(server.url, server.key, conversation)
    await tab.say("/stream 10000 5")
    await expect(tab.answer).to_contain_text("0 1 2")
    await tab.press("Stop")
    await tab.is_idle()
    await eventually(tab.shown, wanted(await snapshot(server, conversation)))
    assert "partial" in (await tab.page.locator("main > .assistant").last.get_attribute("class") or "")


async def test_what_is_said_to_a_running_agent_is_heard_between_two_steps(server: Server, new_tab: NewTab) -> None:
    tab = await new_tab()
    await tab.open(server.url, server.key, fresh())
    await tab.say("/run true\n/say the end")
    await expect(tab.question).to_be_visible()
    await tab.say("and hurry")
    await tab.press("Allow once")
    await tab.is_idle()
    await expect(tab.page.locator("main > .user").last).to_contain_text("and hurry")
    await expect(tab.page.locator("main > .user")).to_have_count(2)


async def test_a_keyboard_is_enough(server: Server, new_tab: NewTab) -> None:
    tab = await new_tab()
    await tab.open(server.url, server.key, fresh())
    await tab.say("/run date\n/ask Which? | red | blue")
    await expect(tab.question).to_contain_text("Allow Terminal?")
    await tab.page.keyboard.press("Shift+Tab")
    await expect(tab.question.get_by_role("button", name="Deny")).to_be_focused()
    await tab.page.keyboard.press("Enter")
    await expect(tab.question).to_contain_text("Which?")
    await tab.page.keyboard.press("Tab")
    await expect(tab.question.get_by_role("button", name="red")).to_be_focused()
    await tab.page.keyboard.press("Enter")
    await expect(tab.card("Ask").locator("[data-slot=output]")).to_have_text("red")
    await tab.page.get_by_label("Message").fill("one")
    await tab.page.keyboard.press("Shift+Enter")
    await tab.page.keyboard.type("two")
    await tab.page.keyboard.press("Enter")
    await expect(tab.page.locator("main > .user [data-slot=text]").last).to_have_text("one\ntwo")


async def test_questions_have_their_titles_as_names(server: Server, new_tab: NewTab) -> None:
    tab = await new_tab()
    await tab.open(server.url, server.key, fresh())
    await tab.say("/run date")
    asked = tab.page.get_by_role("group", name="Allow Terminal?")
    await asked.get_by_role("button", name="Allow once").click()
    await expect(asked).to_have_count(0)


async def test_several_choices_and_a_text_of_one_s_own_answer_together(server: Server, new_tab: NewTab) -> None:
    tab = await new_tab()
    await tab.open(server.url, server.key, fresh())
    choices = {"question": "Which?", "choices": ["red", "blue", "green"], "multiple": True, "allow_other": True}
    await tab.say(call("clarify", **choices))
    await tab.question.get_by_label("Choices").select_option(["red", "green"])
    await tab.question.get_by_label("Answer").fill("mauve")
    await tab.picture("several")
    await tab.press("Answer")
    await expect(tab.card("Ask").locator("[data-slot=output]")).to_have_text('["red","green","mauve"]')


async def test_another_conversation_in_the_address_is_opened(server: Server, new_tab: NewTab) -> None:
    tab, other = await new_tab(), fresh()
    await tab.open(server.url, server.key, fresh())
    await tab.page.evaluate(f"location.hash = '#key={server.key}&c={other}'")
    await expect(tab.page.get_by_role("heading")).to_have_text(f"hermes-ws · {other}")
    await tab.is_live()


async def test_an_id_that_cannot_be_one_is_said_to_be_so(server: Server, new_tab: NewTab) -> None:
    tab = await new_tab(but=re.compile("hello world"))
    await tab.page.goto(f"{server.url}/example#key={server.key}&c=hello world")
    await expect(tab.notice).to_contain_text("hello world")
    await expect(tab.page.locator("#line")).to_have_text("not connected")


async def test_a_second_run_can_wait_behind_the_first(server: Server, new_tab: NewTab) -> None:
    tab = await new_tab()
    await tab.open(server.url, server.key, fresh())
    await tab.say("/run true\n/say first")
    await tab.page.get_by_label("Message").fill("second")
    await tab.press("Queue")
    await expect(tab.page.locator("#run")).to_have_text("waiting, 1 more")
    await tab.press("Allow once")
    await expect(tab.answer).to_contain_text("second")
    await tab.is_idle()


async def test_a_tool_of_the_page_is_executed_in_the_page(server: Server, new_tab: NewTab) -> None:
    tab, conversation = await new_tab(), fresh()
    await tab.open(server.url, server.key, conversation)
    await tab.say("/tool browser_info {}")
    await tab.is_idle()
    await expect(tab.card("browser_info")).to_contain_text("client ok")
    output = await tab.card("browser_info").locator("[data-slot=output]").text_content()
    assert json.loads(output or "")["title"] == f"hermes-ws · {conversation}"


async def test_a_form_is_filled_in_or_declined(
    make_server: MakeServer, official: OfficialServer, new_tab: NewTab
) -> None:
    server, tab, conversation = make_server(settings=LOCAL), await new_tab(), fresh()
    config = {"mcp_servers": {"crm": crm(official)}, **AUTO}
    await server.post(conversation, {"type": "conversation.configure", "config": config})
    await tab.open(server.url, server.key, conversation)
    await tab.say(f"{call('ask_name')}\n{call('ask_name')}")
    await tab.question.get_by_role("button", name="Send").click()
    await expect(tab.question.get_by_label("Name *")).to_be_focused()  # it is required, by the browser's word
    await tab.question.get_by_label("name").fill("Ada")
    await tab.question.get_by_label("age").fill("36")
    await tab.question.get_by_label("newsletter").check()
    await tab.picture("form")
    await tab.question.get_by_role("button", name="Send").click()
    output = tab.page.locator("main > .tool_call [data-slot=output]").first
    await expect(output).to_have_text("Hello Ada, aged 36, newsletter: True")
    await tab.press("Decline")
    await tab.is_idle()


async def test_a_run_that_fails_says_why_until_the_next_one_begins(server: Server, new_tab: NewTab) -> None:
    tab = await new_tab()
    await tab.open(server.url, server.key, fresh())
    await tab.say("/fail model_auth")
    await expect(tab.notice).to_contain_text("The run failed: ")
    await tab.picture("failed")
    await tab.say("again")
    await expect(tab.answer).to_contain_text("again")
    await expect(tab.notice).to_be_hidden()


async def test_a_key_that_is_not_known_is_said_to_be_so(server: Server, new_tab: NewTab) -> None:
    tab = await new_tab()
    await tab.page.goto(f"{server.url}/example#key=wrong&c=demo")
    await expect(tab.notice).to_have_text("this key is not known here (4401): open /example#key=KEY&c=demo")
    await expect(tab.page.locator("#line")).to_have_text("closed")
    await tab.picture("wrong-key")


async def test_a_conversation_that_is_deleted_is_said_to_be_gone(server: Server, new_tab: NewTab) -> None:
    tab, conversation = await new_tab(), fresh()
    await tab.open(server.url, server.key, conversation)
    await tab.say("hi")
    await tab.is_idle()
    async with server.http() as http:
        await http.delete(f"/api/conversations/{conversation}")
    await expect(tab.page.locator("#line")).to_have_text("closed")
    await expect(tab.notice).to_contain_text("(4410)")


async def test_a_page_that_is_loaded_anew_in_the_middle_of_a_run_goes_on(server: Server, new_tab: NewTab) -> None:
    tab, conversation = await new_tab(), fresh()
    await tab.open(server.url, server.key, conversation)
    await tab.say("/think Hm.\n/stream 400 5\n/ask Which? | red | blue")
    await expect(tab.answer).to_contain_text("0 1 2 3")
    await tab.page.reload()
    await expect(tab.answer).to_contain_text("0 1 2 3")
    await expect(tab.question).to_be_visible()
    await tab.page.reload()
    await tab.press("blue")
    await expect(tab.card("Ask").locator("[data-slot=output]")).to_have_text("blue")
    await tab.is_idle()
    assert await tab.shown() == wanted(await snapshot(server, conversation))


async def test_a_call_is_executed_in_one_of_two_tabs(server: Server, new_tab: NewTab) -> None:
    one, other, conversation = await new_tab(), await new_tab(), fresh()
    for tab in (one, other):
        await tab.open(server.url, server.key, conversation)
    await other.say("/tool browser_info {}")
    for tab in (one, other):
        await expect(tab.card("browser_info")).to_contain_text("client ok")
        await tab.is_idle()
    answers = [event for event in await server.log(conversation) if event["type"] == "interaction.resolved"]
    assert [answer["outcome"] for answer in answers] == ["answered"]


async def test_two_tabs_see_the_same_and_the_one_that_answers_first_is_the_one_that_counts(
    server: Server, new_tab: NewTab
) -> None:
    one, other, conversation = await new_tab(), await new_tab(), fresh()
    for tab in (one, other):
        await tab.open(server.url, server.key, conversation)
    await one.say("/run echo hello")
    for tab in (one, other):
        await expect(tab.question).to_be_visible()
    await other.press("Allow once")
    await expect(one.card("Terminal")).to_contain_text("answered once by owner")
    await expect(other.card("Terminal")).to_contain_text("answered once by you")
    for tab in (one, other):
        await expect(tab.question).to_have_count(0)
        await tab.is_idle()
        await expect(tab.notice).to_be_empty()
    assert await one.shown() == await other.shown() == wanted(await snapshot(server, conversation))


async def test_a_page_that_does_not_answer_for_a_while_would_have_been_noticed(server: Server, new_tab: NewTab) -> None:
    tab = await new_tab()
    await tab.open(server.url, server.key, fresh())
    await tab.page.evaluate("() => setTimeout(() => { const end = Date.now() + 250; while (Date.now() < end); })")
    async with soon():
        while max(await tab.long_tasks_ms(), default=0) <= LONGEST_TASK_MS:
            await asyncio.sleep(0.02)
