"""Lists of what a credential reaches: no page without what there is, no cursor that names what is others'."""

from __future__ import annotations

from itertools import count

import msgspec
import pytest

from hermes_ws.protocol.events import InteractionRequested
from hermes_ws.protocol.summaries import ConversationSummary
from hermes_ws.protocol.values import AnswerableBy, OnExpire, Owner, Usage
from hermes_ws.runtime.principal import Principal
from hermes_ws.runtime.reached import conversations, for_people
from hermes_ws.store.base import ConversationRef, InteractionRow, Store
from tests.store.conftest import commit
from tests.store.conftest import store as store

ALL = Principal("home", "me", "admin")
SOME = Principal("home", "me", "admin", conversations=frozenset({"mine", "asks", "yet-to-begin"}))
_NUMBERS = count(1)


def question(*, of_a_client: bool = False) -> InteractionRequested:
    """An open interaction, asked after all before it."""
    number = next(_NUMBERS)
    owner = Owner(principal="me", client_id="tab-1", if_gone="fail", grace_ms=0)
    return InteractionRequested(
        seq=1,
        ts=number,
        run_id="run_1",
        interaction_id=f"int_{number}",
        kind="client_tool" if of_a_client else "clarify",
        title="Well?",
        message="Well?",
        editable=False,
        requested_at=number,
        expires_at=2**40,
        on_expire=OnExpire(cancel=True),
        answerable_by=AnswerableBy(roles=["driver"]),
        owner=owner if of_a_client else None,
    )


async def begin(store: Store, name: str, *asked: InteractionRequested, at: int = 1, namespace: str = "home") -> None:
    """A conversation of one event, in which this is asked."""
    summary = ConversationSummary(
        conversation_id=name,
        title=None,
        status="idle",
        queue=0,
        interactions=list(asked),
        last_event_at=at,
        head=1,
        usage=Usage(input_tokens=0, output_tokens=0, total_tokens=0),
    )
    rows = [InteractionRow(one.interaction_id, msgspec.json.encode(one), None, one.requested_at) for one in asked]
    encoded, ref = msgspec.json.encode(summary), ConversationRef(namespace, name)
    waiting = any(one.kind != "client_tool" for one in asked)
    assert await commit(store, 0, b"{}", ref=ref, at=at, summary=encoded, waiting=waiting, interactions=rows) is None


async def everywhere(store: Store) -> None:
    """Conversations of somebody who reaches some of them, among those of others, which changed later."""
    await begin(store, "asks", question(), question(of_a_client=True), at=1)
    await begin(store, "mine", question(of_a_client=True), at=2)
    for number in range(5):
        await begin(store, f"others{number}", question(), at=10 + number)
    await begin(store, "mine", question(), namespace="away")


@pytest.mark.parametrize(("waiting_first", "names"), [(False, ["mine", "asks"]), (True, ["asks", "mine"])])
async def test_who_reaches_some_conversations_gets_these_on_one_page_in_the_order_of_the_list(
    store: Store, waiting_first: bool, names: list[str]
) -> None:
    await everywhere(store)
    page = await conversations(store, SOME, limit=1, cursor=None, waiting_first=waiting_first)
    assert [line.conversation_id for line in page.lines] == names
    assert page.next is None


async def test_who_reaches_some_conversations_gets_what_is_asked_in_these_on_one_page(store: Store) -> None:
    await everywhere(store)
    await begin(store, "yet-to-begin", question(), at=0)
    asked, following = await for_people(store, SOME, limit=1, cursor=None)
    assert [one.conversation_id for one in asked] == ["asks", "yet-to-begin"]
    assert following is None


async def test_a_cursor_of_others_is_none_for_who_reaches_some_conversations(store: Store) -> None:
    await everywhere(store)
    for cursor in ("12-others1", "rest-12-others1"):
        with pytest.raises(ValueError, match="is not a cursor"):
            await conversations(store, SOME, limit=1, cursor=cursor)
        with pytest.raises(ValueError, match="is not a cursor"):
            await for_people(store, SOME, limit=1, cursor=cursor)


@pytest.mark.parametrize("limit", [1, 2, 3, 7, 1_000])
async def test_calls_that_a_client_executes_leave_no_gap_in_the_pages_of_what_people_can_answer(
    store: Store, limit: int
) -> None:
    """Also where there are more of them than are read at once."""
    calls = [question(of_a_client=True) for _ in range(250)]
    await begin(store, "one", question(), *calls, question())
    await begin(store, "two", question(of_a_client=True), question(), question(), question(of_a_client=True))
    sizes: list[int] = []
    names: list[str] = []
    cursor: str | None = None
    while True:
        asked, cursor = await for_people(store, ALL, limit=limit, cursor=cursor)
        sizes.append(len(asked))
        names += [one.conversation_id for one in asked]
        if cursor is None:
            break
    assert names == ["one", "one", "two", "two"]
    assert sizes == [len(names[at : at + limit]) for at in range(0, 4, limit)]
