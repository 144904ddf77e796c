"""Answers to what was asked before a restart, whenever they come."""

from __future__ import annotations

import asyncio
from pathlib import Path

import anyio

from hermes_ws.decisions import Ask
from hermes_ws.protocol.commands import ConversationConfigure, InteractionReply, RunStart
from hermes_ws.protocol.values import Question
from hermes_ws.runtime.questions import Questions
from tests.runtime.conftest import REF, GatedStore, runtime_over, send, until

SECRET = Question(id="answer", prompt="The token?", type="secret", required=True, allow_other=False)


async def test_a_secret_that_is_answered_while_its_asker_waits_for_the_log_is_not_asked_for_again(
    tmp_path: Path,
) -> None:
    store = GatedStore()
    async with runtime_over(store, tmp_path) as runtime:
        conversation = await runtime.open(REF)
        run_id = (await send(runtime, conversation, RunStart(input="/sleep 60"))).run_id
        assert run_id is not None
        question = Ask(kind="clarify", title="Token", message="The token?", questions=[SECRET])
        interaction_id, decision = conversation.session.ask(run_id, question, conversation.now())
        conversation.commit(decision)
        await conversation.settled()
        asked = conversation.session.state.interactions[interaction_id]

        store.holding = True
        before = asyncio.create_task(send(runtime, conversation, ConversationConfigure(config={"title": "x"})))
        await until(lambda: len(store.held) == 1)
        looking = asyncio.create_task(Questions(conversation, run_id, [asked]).resolution(asked))
        await anyio.wait_all_tasks_blocked()
        reply = InteractionReply(interaction_id=interaction_id, answers={"answer": "xyzzy-xyzzy"})
        answering = asyncio.create_task(send(runtime, conversation, reply))
        await until(lambda: len(store.held) == 2)
        first, rest = store.held[:1], store.held[1:]
        store.held = first
        store.let_go()
        store.holding, store.held = True, rest
        await before
        await anyio.wait_all_tasks_blocked()
        store.let_go()
        await answering
        with anyio.fail_after(10):
            answer = await looking
        assert answer is not None
        assert answer.answers == {"answer": "xyzzy-xyzzy"}
