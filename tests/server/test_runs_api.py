"""``/v1/runs`` over HTTP, as hermes-agent's clients use it, and where it is better."""

from __future__ import annotations

import asyncio
import json
import re
from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import httpx2
import pytest

from tests.conftest import MakeServer
from tests.pictures import data_url, picture
from tests.wire import Json, Server, fresh, soon

TERMINAL = {"completed", "failed", "cancelled"}
PNG = data_url(picture())


async def begin(http: httpx2.AsyncClient, said: Any, headers: dict[str, str] | None = None, **fields: Any) -> Json:
    answer = await http.post("/v1/runs", json={"input": said, **fields}, headers=headers)
    assert answer.status_code == 202, answer.text
    body: Json = answer.json()
    return body


@asynccontextmanager
async def reading(
    http: httpx2.AsyncClient, run_id: str, headers: dict[str, str] | None = None, **query: Any
) -> AsyncGenerator[AsyncIterator[Json]]:
    """The run's events, as they come."""
    async with http.stream("GET", f"/v1/runs/{run_id}/events", params=query, headers=headers) as answer:
        assert answer.status_code == 200
        assert answer.headers["content-type"].startswith("text/event-stream")
        yield _events(answer)


async def _events(answer: httpx2.Response) -> AsyncIterator[Json]:
    number: int | None = None
    async for line in answer.aiter_lines():
        if line.startswith("id: "):
            number = int(line.removeprefix("id: "))
        elif line.startswith("data: "):
            yield {"id": number, **json.loads(line.removeprefix("data: "))}
            number = None
        elif line == ": stream closed":
            yield {"event": "closed"}


async def everything(http: httpx2.AsyncClient, run_id: str, **query: Any) -> list[Json]:
    async with soon(), reading(http, run_id, **query) as events:
        return [event async for event in events]


async def until(events: AsyncIterator[Json], name: str) -> Json:
    async with soon():
        async for event in events:
            if event["event"] == name:
                return event
    raise AssertionError(f"the stream ended before {name}")


async def get(http: httpx2.AsyncClient, run_id: str) -> Json:
    answer = await http.get(f"/v1/runs/{run_id}")
    assert answer.status_code == 200, answer.text
    run: Json = answer.json()
    return run


async def ended(http: httpx2.AsyncClient, run_id: str) -> Json:
    await everything(http, run_id)
    run = await get(http, run_id)
    assert run["status"] in TERMINAL
    return run


async def waiting(http: httpx2.AsyncClient, run_id: str, name: str) -> Json:
    """The run, once it waits: what it asks."""
    async with reading(http, run_id) as events:
        return await until(events, name)


def code(answer: httpx2.Response) -> tuple[int, str]:
    error = answer.json()["error"]
    assert set(error) == {"message", "type", "param", "code"}
    return answer.status_code, error["code"]


class TestARun:
    async def test_is_begun_watched_and_looked_up(self, server: Server) -> None:
        async with server.http() as http:
            begun = await begin(http, "hello there")
            assert begun["status"] == "started"
            assert begun["replayed"] is False
            assert re.fullmatch(r"run_[0-9a-f]{32}", begun["run_id"])
            assert begun["session_id"]
            events = await everything(http, begun["run_id"])
            run = await get(http, begun["run_id"])
        names = [event["event"] for event in events]
        assert names[0] == "run.started"
        assert names[-2:] == ["run.completed", "closed"]
        said = "".join(event["delta"] for event in events if event["event"] == "message.delta")
        assert "hello there" in said
        assert said == events[-2]["output"] == run["output"]
        assert (run["object"], run["status"], run["last_event"]) == ("hermes.run", "completed", "run.completed")
        assert run["usage"] == events[-2]["usage"]
        assert run["session_id"] == begun["session_id"]
        assert run["created_at"] <= run["updated_at"]

    async def test_a_person_at_the_socket_sees_it(self, server: Server) -> None:
        conversation = fresh()
        async with server.socket(conversation) as person, server.http() as http:
            begun = await begin(http, "hello", session_id=conversation)
            async with soon():
                completed = await person.until("run.completed")
        assert completed["run_id"] == begun["run_id"]

    async def test_a_run_of_the_socket_is_found_here(self, server: Server) -> None:
        conversation = fresh()
        async with server.socket(conversation) as person, server.http() as http:
            ok = await person.ok("run.start", input="hello")
            run = await ended(http, ok["run_id"])
        assert (run["status"], run["session_id"]) == ("completed", conversation)

    async def test_tools_have_ids_arguments_and_results(self, server: Server) -> None:
        async with server.http() as http:
            begun = await begin(http, '/tool list_files {"path": "."}\n/say done')
            events = await everything(http, begun["run_id"])
        [started] = [event for event in events if event["event"] == "tool.started"]
        [completed] = [event for event in events if event["event"] == "tool.completed"]
        assert (started["tool"], started["preview"], started["args"]) == ("list_files", ".", {"path": "."})
        assert completed["tool_call_id"] == started["tool_call_id"]
        assert (completed["error"], completed["tool"]) == (False, "list_files")
        assert isinstance(completed["duration"], float)

    async def test_reasoning_is_told(self, server: Server) -> None:
        async with server.http() as http:
            begun = await begin(http, "/think about it\n/say done")
            events = await everything(http, begun["run_id"])
        [whole] = [event for event in events if event["event"] == "reasoning.available"]
        assert whole["text"] == "about it"

    async def test_a_failure_is_told_with_its_code(self, server: Server) -> None:
        async with server.http() as http:
            begun = await begin(http, "/fail context_length")
            run = await ended(http, begun["run_id"])
        assert (run["status"], run["error_code"]) == ("failed", "context_length")
        assert run["error"]

    async def test_one_that_is_not_there_is_not_found(self, server: Server) -> None:
        async with server.http() as http:
            for method, path in [
                ("GET", ""),
                ("GET", "/events"),
                ("POST", "/stop"),
                ("POST", "/steer"),
                ("POST", "/approval"),
                ("POST", "/clarification"),
            ]:
                answer = await http.request(method, f"/v1/runs/run_nowhere{path}", json={"choice": "once", "text": "x"})
                assert code(answer) == (404, "run_not_found")

    async def test_without_a_key_nothing_is_told(self, server: Server) -> None:
        async with server.http(key="") as http:
            assert (await http.post("/v1/runs", json={"input": "x"})).status_code == 401
            assert (await http.get("/v1/runs")).status_code == 401


class TestRequests:
    @pytest.mark.parametrize(
        "body",
        [
            "nothing",
            "[]",
            '"x"',
            "5",
            "{}",
            '{"input": [1]}',
            '{"input": {"a": 1}}',
            '{"input": [["x"]]}',
            '{"input": "x", "conversation_history": "y"}',
            '{"input": "x", "conversation_history": {}}',
            '{"input": false}',
            '{"input": "x", "session_id": 5}',
            '{"input": "x", "session_id": "no spaces please"}',
            '{"input": "x", "metadata": []}',
            '{"input": "x", "tools": {"allow": 5}}',
            '{"input": "\\ud800"}',
            '{"input": "x", "model": {"a": 1}}',
            "[" * 100_000,
            "",
        ],
    )
    async def test_what_cannot_be_read_is_refused_by_name(self, server: Server, body: str) -> None:
        async with server.http() as http:
            answer = await http.post("/v1/runs", content=body.encode(), headers={"content-type": "application/json"})
        status, _ = code(answer)
        assert status == 400

    async def test_a_model_that_is_not_there_is_not_found(self, server: Server) -> None:
        async with server.http() as http:
            answer = await http.post("/v1/runs", json={"input": "x", "model": "gpt-9"})
        assert code(answer) == (404, "model_not_found")

    async def test_messages_are_counted(self, make_server: MakeServer) -> None:
        server, said = make_server(settings="[compat]\nmessages = 2\n"), {"role": "user", "content": "x"}
        async with server.http() as http:
            answer = await http.post("/v1/runs", json={"input": "y", "conversation_history": [said] * 3})
        assert code(answer) == (400, "invalid_value")

    async def test_images_are_honoured(self, server: Server) -> None:
        parts = [{"type": "text", "text": "look"}, {"type": "image_url", "image_url": {"url": PNG}}]
        async with server.http() as http:
            begun = await begin(http, [{"role": "user", "content": parts}])
            await ended(http, begun["run_id"])
        log = await server.log(begun["session_id"])
        [started] = [event for event in log if event["type"] == "run.started"]
        assert [part["type"] for part in started["input"]] == ["text", "image"]

    async def test_instructions_and_filters_are_the_runs_own(self, server: Server) -> None:
        async with server.http() as http:
            begun = await begin(http, "/run echo hi\n/say done", tools={"allow": []}, instructions="be brief")
            events = await everything(http, begun["run_id"])
        [completed] = [event for event in events if event["event"] == "tool.completed"]
        assert completed["status"] == "denied"


class TestSessions:
    async def test_a_session_is_joined_with_its_history(self, server: Server) -> None:
        session = fresh()
        async with server.http() as http:
            first = await begin(http, "one", session_id=session)
            await ended(http, first["run_id"])
            second = await begin(http, "two", session_id=session)
            assert second["history"] == "session"
            await ended(http, second["run_id"])
            messages = (await http.get(f"/api/conversations/{session}/events")).json()["events"]
        asked = [event["input"] for event in messages if event["type"] == "run.started"]
        assert asked == ["one", "two"]

    async def test_history_that_is_brought_along_is_in_the_log_before_it(self, server: Server) -> None:
        history = [{"role": "user", "content": "one"}, {"role": "assistant", "content": "two"}]
        async with server.http() as http:
            begun = await begin(http, "three", conversation_history=history)
            assert begun["history"] == "conversation_history"
            await ended(http, begun["run_id"])
        log = await server.log(begun["session_id"])
        assert [event["input"] for event in log if event["type"] == "run.started"] == ["one", "three"]

    async def test_history_of_a_session_is_not_told_twice(self, server: Server) -> None:
        session, history = fresh(), [{"role": "user", "content": "one"}, {"role": "assistant", "content": "two"}]
        async with server.http() as http:
            await ended(http, (await begin(http, "one", session_id=session))["run_id"])
            begun = await begin(http, "three", session_id=session, conversation_history=history)
            assert begun["history"] == "session"
            await ended(http, begun["run_id"])
        log = await server.log(session)
        assert [event["input"] for event in log if event["type"] == "run.started"] == ["one", "three"]

    async def test_a_response_is_gone_on_from_in_its_conversation_or_in_a_copy(self, server: Server) -> None:
        async with server.http() as http:
            body = {"model": "hermes-agent", "input": "one", "conversation": fresh()}
            response = (await http.post("/v1/responses", json=body)).json()
            first = await begin(http, "two", previous_response_id=response["id"])
            assert (first["history"], first["session_id"]) == ("previous_response", body["conversation"])
            await ended(http, first["run_id"])
            second = await begin(http, "three", previous_response_id=response["id"])
            assert second["session_id"] != first["session_id"]
            await ended(http, second["run_id"])
        log = await server.log(second["session_id"])
        assert [event["input"] for event in log if event["type"] == "run.started"] == ["one", "three"]

    async def test_a_response_that_is_not_there_is_not_found(self, server: Server) -> None:
        async with server.http() as http:
            answer = await http.post("/v1/runs", json={"input": "x", "previous_response_id": "resp_nowhere"})
        assert code(answer) == (400, "previous_response_not_found")

    async def test_a_new_one_is_nobody_elses(self, server: Server) -> None:
        async with server.http() as http:
            first = await begin(http, "one", session_id="new")
            await ended(http, first["run_id"])
            second = await begin(http, "two", session_id="new")
            await ended(http, second["run_id"])
        assert len({"new", first["session_id"], second["session_id"]}) == 3
        assert second["history"] == "none"

    async def test_runs_of_a_session_go_one_after_the_other(self, server: Server) -> None:
        session = fresh()
        async with server.http() as http:
            first = await begin(http, "/ask Which? | a | b", session_id=session)
            second = await begin(http, "two", session_id=session)
            assert (first["status"], second["status"]) == ("started", "queued")
            assert (await get(http, second["run_id"]))["status"] == "queued"
            stopped = await http.post(f"/v1/runs/{second['run_id']}/stop")
            assert stopped.json()["status"] == "cancelled"
            assert (await ended(http, second["run_id"]))["status"] == "cancelled"
            await http.post(f"/v1/runs/{first['run_id']}/stop")
            await ended(http, first["run_id"])


class TestEvents:
    async def test_any_number_of_readers_get_the_same(self, server: Server) -> None:
        async with server.http() as http:
            begun = await begin(http, "/think hm\n/stream 50\n/say done")
            readers = await asyncio.gather(*(everything(http, begun["run_id"]) for _ in range(5)))
        first = readers[0]
        assert first[-2]["event"] == "run.completed"
        assert all(reader == first for reader in readers)

    async def test_they_can_be_read_after_the_end_from_any_point(self, server: Server) -> None:
        async with server.http() as http:
            begun = await begin(http, '/think hm\n/tool list_files {"path": "."}\n/say done')
            whole = await everything(http, begun["run_id"])
            for cut, event in enumerate(whole[:-1], 1):
                assert await everything(http, begun["run_id"], after=event["id"]) == whole[cut:]
            async with soon(), reading(http, begun["run_id"], headers={"Last-Event-ID": str(whole[0]["id"])}) as events:
                assert [event async for event in events] == whole[1:]

    async def test_whoever_reconnects_at_the_same_address_goes_on_from_the_last_event(self, server: Server) -> None:
        async with server.http() as http:
            begun = await begin(http, '/think hm\n/tool list_files {"path": "."}\n/say done')
            whole = await everything(http, begun["run_id"], after=0)
            seen = {"Last-Event-ID": str(whole[1]["id"])}
            for after in (0, whole[0]["id"]):
                async with soon(), reading(http, begun["run_id"], headers=seen, after=after) as events:
                    assert [event async for event in events] == whole[2:]

    async def test_a_number_that_is_yet_to_come_is_now(self, server: Server) -> None:
        async with server.http() as http:
            begun = await begin(http, "/ask Which? | a | b\n/say done")
            await waiting(http, begun["run_id"], "clarify.request")
            async with soon(), reading(http, begun["run_id"], after=10**9) as events:
                await http.post(f"/v1/runs/{begun['run_id']}/clarification", json={"answer": "a"})
                assert [event["event"] async for event in events][-1] == "closed"
            assert [event["event"] for event in await everything(http, begun["run_id"], after=10**9)] == ["closed"]

    async def test_a_number_that_is_none_is_refused(self, server: Server) -> None:
        async with server.http() as http:
            begun = await begin(http, "hi")
            answer = await http.get(f"/v1/runs/{begun['run_id']}/events", params={"after": "soon"})
            assert code(answer) == (400, "invalid_value")
            headers = {"Last-Event-ID": "x"}
            assert (await http.get(f"/v1/runs/{begun['run_id']}/events", headers=headers)).status_code == 400

    async def test_they_are_not_those_of_other_runs(self, server: Server) -> None:
        session = fresh()
        async with server.http() as http:
            first = await begin(http, "one", session_id=session)
            await ended(http, first["run_id"])
            second = await begin(http, "two", session_id=session)
            for begun in (first, second):
                events = await everything(http, begun["run_id"])
                assert {event["run_id"] for event in events[:-1]} == {begun["run_id"]}

    async def test_a_silent_stream_carries_comments(self, make_server: MakeServer) -> None:
        server = make_server(settings="[compat]\nkeepalive_s = 0.1\n")
        async with server.http() as http:
            begun = await begin(http, "/ask Which? | a | b")
            async with soon(), http.stream("GET", f"/v1/runs/{begun['run_id']}/events") as answer:
                async for line in answer.aiter_lines():
                    if line == ": keepalive":
                        break
            await http.post(f"/v1/runs/{begun['run_id']}/stop")
            await ended(http, begun["run_id"])

    async def test_a_reader_who_goes_ends_nothing(self, server: Server) -> None:
        async with server.http() as http:
            begun = await begin(http, "/sleep 0.3\n/say done")
            async with reading(http, begun["run_id"]) as events:
                await until(events, "run.started")
            run = await ended(http, begun["run_id"])
        assert (run["status"], run["output"]) == ("completed", "done")


class TestApprovals:
    async def test_a_run_waits_for_one_and_goes_on(self, server: Server) -> None:
        async with server.http() as http:
            begun = await begin(http, "/run echo hi\n/say done")
            asked = await waiting(http, begun["run_id"], "approval.request")
            assert asked["command"] == "echo hi"
            assert asked["choices"] == ["once", "session", "always", "deny"]
            run = await get(http, begun["run_id"])
            assert (run["status"], run["last_event"]) == ("waiting_for_approval", "approval.request")
            assert run["approval"]["request_id"] == asked["request_id"]
            answer = await http.post(f"/v1/runs/{begun['run_id']}/approval", json={"choice": "approve"})
            assert answer.json() == {
                "object": "hermes.run.approval_response",
                "run_id": begun["run_id"],
                "choice": "once",
                "resolved": 1,
                "request_id": asked["request_id"],
            }
            events = await everything(http, begun["run_id"])
        [responded] = [event for event in events if event["event"] == "approval.responded"]
        assert (responded["choice"], responded["resolved"]) == ("once", 1)
        [completed] = [event for event in events if event["event"] == "tool.completed"]
        assert "hi" in completed["result"]

    async def test_a_session_remembers_its_own(self, server: Server) -> None:
        session = fresh()
        async with server.http() as http:
            first = await begin(http, "/run echo again", session_id=session)
            await waiting(http, first["run_id"], "approval.request")
            await http.post(f"/v1/runs/{first['run_id']}/approval", json={"choice": "session"})
            await ended(http, first["run_id"])
            second = await begin(http, "/run echo again", session_id=session)
            events = await everything(http, second["run_id"])
        assert "approval.request" not in [event["event"] for event in events]

    async def test_denied_it_does_not_run(self, server: Server) -> None:
        async with server.http() as http:
            begun = await begin(http, "/run echo hi\n/say done")
            asked = await waiting(http, begun["run_id"], "approval.request")
            body = {"choice": "deny", "request_id": asked["request_id"]}
            assert (await http.post(f"/v1/runs/{begun['run_id']}/approval", json=body)).status_code == 200
            events = await everything(http, begun["run_id"])
        [completed] = [event for event in events if event["event"] == "tool.completed"]
        assert (completed["status"], completed["error"]) == ("denied", True)

    async def test_several_can_be_answered_at_once(self, server: Server) -> None:
        async with server.http() as http:
            begun = await begin(http, "/run echo one\n/par\n/run echo two\n/say done")
            async with reading(http, begun["run_id"]) as events:
                await until(events, "approval.request")
                await until(events, "approval.request")
            path = f"/v1/runs/{begun['run_id']}/approval"
            answer = await http.post(path, json={"choice": "once", "resolve_all": True})
            assert answer.json()["resolved"] == 2
            assert (await ended(http, begun["run_id"]))["status"] == "completed"

    async def test_what_cannot_be_answered_is_refused(self, server: Server) -> None:
        async with server.http() as http:
            begun = await begin(http, "/ask Which? | a | b")
            await waiting(http, begun["run_id"], "clarify.request")
            path = f"/v1/runs/{begun['run_id']}/approval"
            assert code(await http.post(path, json={"choice": "maybe"})) == (400, "invalid_approval_choice")
            assert code(await http.post(path, json={"choice": "once"})) == (409, "approval_not_pending")
            named = {"choice": "once", "request_id": "int_0"}
            assert code(await http.post(path, json=named)) == (409, "approval_not_pending")
            wrong = {"choice": "once", "request_id": 5}
            assert code(await http.post(path, json=wrong)) == (400, "invalid_approval_request")
            await http.post(f"/v1/runs/{begun['run_id']}/stop")
            await ended(http, begun["run_id"])
            assert code(await http.post(path, json={"choice": "once"})) == (409, "approval_not_active")

    async def test_a_call_is_not_made_as_it_was_when_its_edited_arguments_cannot_be_read(self, server: Server) -> None:
        async with server.http() as http:
            begun = await begin(http, "/run echo dangerous\n/say done")
            await waiting(http, begun["run_id"], "approval.request")
            path = f"/v1/runs/{begun['run_id']}/approval"
            edited = {"choice": "once", "arguments": '{"command": "echo harmless"}'}
            assert code(await http.post(path, json=edited)) == (400, "invalid_approval_request")
            assert (await get(http, begun["run_id"]))["status"] == "waiting_for_approval"
            answer = await http.post(path, json={"choice": "once", "arguments": {"command": "echo harmless"}})
            assert answer.status_code == 200
            events = await everything(http, begun["run_id"])
        [completed] = [event for event in events if event["event"] == "tool.completed"]
        assert "harmless" in completed["result"]
        assert "dangerous" not in completed["result"]


class TestClarifications:
    @pytest.mark.parametrize("address", ["clarification", "clarify"])
    async def test_a_question_is_answered(self, server: Server, address: str) -> None:
        async with server.http() as http:
            begun = await begin(http, "/ask Which? | red | blue")
            asked = await waiting(http, begun["run_id"], "clarify.request")
            assert (asked["question"], asked["choices"]) == ("Which?", ["red", "blue"])
            run = await get(http, begun["run_id"])
            assert (run["status"], run["clarification"]["question"]) == ("waiting_for_clarification", "Which?")
            body = {"request_id": asked["request_id"], "answer": "blue"}
            answer = await http.post(f"/v1/runs/{begun['run_id']}/{address}", json=body)
            assert answer.json() == {
                "object": "hermes.run.clarification_response",
                "run_id": begun["run_id"],
                "request_id": asked["request_id"],
                "type": "choice",
                "resolved": 1,
            }
            events = await everything(http, begun["run_id"])
        [responded] = [event for event in events if event["event"] == "clarify.responded"]
        assert responded["answer"] == "blue"

    async def test_an_answer_that_is_none_is_refused_and_the_question_stays(self, server: Server) -> None:
        async with server.http() as http:
            begun = await begin(http, "/ask Which? | red | blue")
            await waiting(http, begun["run_id"], "clarify.request")
            path = f"/v1/runs/{begun['run_id']}/clarification"
            assert code(await http.post(path, json={"answer": "green"})) == (400, "invalid_clarification")
            assert code(await http.post(path, json={})) == (400, "invalid_clarification")
            assert code(await http.post(path, json={"answer": "red", "request_id": "int_0"})) == (
                409,
                "clarification_not_pending",
            )
            response = {"response": {"type": "choice", "choice_id": "red"}}
            assert (await http.post(path, json=response)).status_code == 200
            await ended(http, begun["run_id"])
            assert code(await http.post(path, json={"answer": "red"})) == (409, "clarification_not_active")

    async def test_a_function_of_the_clients_is_answered_with_its_output(self, server: Server) -> None:
        weather = {"type": "function", "name": "get_weather", "parameters": {"type": "object"}}
        body: Json = {"model": "hermes-agent", "input": "weather?", "tools": [weather], "conversation": fresh()}
        async with server.http() as http:
            assert (await http.post("/v1/responses", json=body)).status_code == 200
            listed = (await http.get("/v1/runs", params={"session_id": body["conversation"]})).json()
            [run] = listed["data"]
            path = f"/v1/runs/{run['run_id']}/clarification"
            assert code(await http.post(path, json={"content": "rain"})) == (400, "invalid_clarification")
            answer = await http.post(path, json={"output": "rain"})
            assert (answer.status_code, answer.json()["type"]) == (200, "function")
            assert (await ended(http, run["run_id"]))["status"] == "completed"


class TestStoppingAndSteering:
    async def test_a_run_is_stopped(self, server: Server) -> None:
        async with server.http() as http:
            begun = await begin(http, "/sleep 60")
            answer = await http.post(f"/v1/runs/{begun['run_id']}/stop")
            assert answer.json() == {"run_id": begun["run_id"], "status": "stopping"}
            run = await ended(http, begun["run_id"])
            assert run["status"] == "cancelled"
            again = await http.post(f"/v1/runs/{begun['run_id']}/stop", json={})
        assert (again.status_code, again.json()) == (200, run)

    async def test_text_is_said_to_a_running_run(self, server: Server) -> None:
        async with server.http() as http:
            begun = await begin(http, "/ask Which? | a | b\n/say done")
            await waiting(http, begun["run_id"], "clarify.request")
            answer = await http.post(f"/v1/runs/{begun['run_id']}/steer", json={"message": "be brief"})
            assert answer.json() == {"object": "hermes.run.steer", "run_id": begun["run_id"], "accepted": True}
            await http.post(f"/v1/runs/{begun['run_id']}/clarification", json={"answer": "a"})
            events = await everything(http, begun["run_id"])
        [steered] = [event for event in events if event["event"] == "run.steered"]
        [resolved] = [event for event in events if event["event"] == "run.steer_resolved"]
        assert (steered["accepted"], resolved["disposition"]) == (True, "applied")

    async def test_a_run_that_is_over_hears_nothing(self, server: Server) -> None:
        async with server.http() as http:
            begun = await begin(http, "hi")
            await ended(http, begun["run_id"])
            path = f"/v1/runs/{begun['run_id']}/steer"
            assert code(await http.post(path, json={"text": "x"})) == (409, "run_not_accepting_steer")
            assert code(await http.post(path, json={"text": " "})) == (400, "invalid_steer_input")


class TestOnce:
    async def test_a_run_is_begun_once(self, server: Server) -> None:
        headers = {"Idempotency-Key": fresh("key")}
        async with server.http() as http:
            first = await begin(http, "hi", headers)
            await ended(http, first["run_id"])
            answer = await http.post("/v1/runs", json={"input": "hi"}, headers=headers)
            assert answer.status_code == 202
            assert answer.headers["Idempotency-Replayed"] == "true"
            assert answer.headers["X-Hermes-Session-Id"] == first["session_id"]
            assert answer.json() == {
                "run_id": first["run_id"],
                "session_id": first["session_id"],
                "status": "completed",
                "replayed": True,
            }

    async def test_also_when_it_is_asked_for_many_times_at_once(self, server: Server) -> None:
        headers, session = {"Idempotency-Key": fresh("key")}, fresh()
        async with server.http() as http:
            answers = await asyncio.gather(*(begin(http, "hi", headers, session_id=session) for _ in range(8)))
            await ended(http, answers[0]["run_id"])
        assert len({answer["run_id"] for answer in answers}) == 1
        assert sorted(answer["replayed"] for answer in answers) == [False] + [True] * 7
        log = await server.log(session)
        assert [event["type"] for event in log].count("run.started") == 1

    @pytest.mark.parametrize("other", [{"input": "ho"}, {"input": "hi", "session_id": "elsewhere"}])
    async def test_another_body_under_the_same_key_is_refused(self, server: Server, other: Json) -> None:
        headers = {"Idempotency-Key": fresh("key")}
        async with server.http() as http:
            await begin(http, "hi", headers)
            answer = await http.post("/v1/runs", json=other, headers=headers)
        assert code(answer) == (409, "idempotency_key_conflict")

    async def test_a_refused_request_may_be_sent_again(self, server: Server) -> None:
        headers = {"Idempotency-Key": fresh("key")}
        async with server.http() as http:
            refused = await http.post("/v1/runs", json={"input": "hi", "model": "nobody"}, headers=headers)
            assert refused.status_code == 404
            assert (await begin(http, "hi", headers))["replayed"] is False

    async def test_answers_are_given_once(self, server: Server) -> None:
        async with server.http() as http:
            begun = await begin(http, "/run echo one\n/run echo two\n/say done")
            await waiting(http, begun["run_id"], "approval.request")
            path, headers = f"/v1/runs/{begun['run_id']}/approval", {"Idempotency-Key": fresh("key")}
            first = await http.post(path, json={"choice": "once"}, headers=headers)
            async with reading(http, begun["run_id"]) as events:
                await until(events, "approval.responded")
                second = await until(events, "approval.request")
            again = await http.post(path, json={"choice": "once"}, headers=headers)
            assert again.json() == {**first.json(), "replayed": True}
            assert again.headers["Idempotency-Replayed"] == "true"
            assert (await get(http, begun["run_id"]))["approval"]["request_id"] == second["request_id"]
            await http.post(f"/v1/runs/{begun['run_id']}/stop", headers={"Idempotency-Key": fresh("key")})
            await ended(http, begun["run_id"])

    async def test_also_to_a_run_of_a_conversation_that_is_not_kept(self, server: Server) -> None:
        body = {"model": "hermes-agent", "messages": [{"role": "user", "content": "/run echo one\n/run echo two"}]}
        async with (
            server.http() as http,
            server.http() as other,
            soon(),
            http.stream("POST", "/v1/chat/completions", json={**body, "stream": True}) as answer,
        ):
            run_id = answer.headers["X-Hermes-Run-Id"]
            await waiting(other, run_id, "approval.request")
            path, headers = f"/v1/runs/{run_id}/approval", {"Idempotency-Key": fresh("key")}
            refused = await other.post(path, json={"choice": "deny"}, headers=headers)
            again = await other.post(path, json={"choice": "deny"}, headers=headers)
            conflict = await other.post(path, json={"choice": "once"}, headers=headers)
            await other.post(f"/v1/runs/{run_id}/stop")
            await answer.aread()
        assert again.json() == {**refused.json(), "replayed": True}
        assert code(conflict) == (409, "idempotency_key_conflict")

    @pytest.mark.parametrize("key", ["", "x" * 256])
    async def test_a_key_that_is_none_is_refused(self, server: Server, key: str) -> None:
        async with server.http() as http:
            answer = await http.post("/v1/runs", json={"input": "hi"}, headers={"Idempotency-Key": key})
        assert code(answer) == (400, "invalid_idempotency_key")


class TestList:
    async def test_runs_are_listed_the_newest_first(self, server: Server) -> None:
        session = fresh()
        async with server.http() as http:
            begun = [await begin(http, text, session_id=session) for text in ("one", "/fail context_length", "three")]
            for one in begun:
                await ended(http, one["run_id"])
            listed = (await http.get("/v1/runs", params={"session_id": session})).json()
            failed = (await http.get("/v1/runs", params={"session_id": session, "status": "failed"})).json()
        assert listed["object"] == "list"
        assert [run["run_id"] for run in listed["data"]] == [one["run_id"] for one in reversed(begun)]
        assert [run["run_id"] for run in failed["data"]] == [begun[1]["run_id"]]

    async def test_in_pages(self, make_server: MakeServer) -> None:
        server = make_server()
        async with server.http() as http:
            begun = [await begin(http, str(number)) for number in range(5)]
            for one in begun:
                await ended(http, one["run_id"])
            found: list[str] = []
            page: Json = {"next": None, "has_more": True}
            while page["has_more"]:
                query = {"limit": 2} | ({"after": page["next"]} if page["next"] else {})
                page = (await http.get("/v1/runs", params=query)).json()
                found += [run["run_id"] for run in page["data"]]
            assert sorted(found) == sorted(one["run_id"] for one in begun)
            first = (await http.get("/v1/runs", params={"after": "", "cursor": ""})).json()
            assert first == (await http.get("/v1/runs")).json()
            assert code(await http.get("/v1/runs", params={"after": "nowhere"})) == (400, "invalid_value")
            assert code(await http.get("/v1/runs", params={"limit": "many"})) == (400, "invalid_value")
            assert code(await http.get("/v1/runs", params={"status": "done"})) == (400, "invalid_value")

    async def test_by_where_they_stand(self, server: Server) -> None:
        session = fresh()
        async with server.http() as http:
            over = await begin(http, "over", session_id=session)
            await ended(http, over["run_id"])
            open_ = await begin(http, "/ask Which? | a | b", session_id=session)
            await waiting(http, open_["run_id"], "clarify.request")
            queued = await begin(http, "later", session_id=session)
            found = {}
            for status in ("completed", "waiting_for_clarification", "queued", "running", "failed"):
                query: Json = {"session_id": session, "status": status}
                page = (await http.get("/v1/runs", params=query)).json()
                found[status] = [run["run_id"] for run in page["data"]]
                assert (page["has_more"], page["next"]) == (False, None)
        assert found == {
            "completed": [over["run_id"]],
            "waiting_for_clarification": [open_["run_id"]],
            "queued": [queued["run_id"]],
            "running": [],
            "failed": [],
        }

    async def test_a_filtered_page_goes_on_where_it_ended(self, make_server: MakeServer) -> None:
        server = make_server()
        async with server.http() as http:
            begun: list[str] = []
            for number in range(6):
                run = await begin(http, "/fail context_length" if number % 2 else "well")
                await ended(http, run["run_id"])
                begun += [run["run_id"]] if number % 2 else []
            found: list[str] = []
            page: Json = {"next": "", "has_more": True}
            while page["has_more"]:
                query = {"limit": 1, "status": "failed", "after": page["next"]}
                page = (await http.get("/v1/runs", params=query)).json()
                assert len(page["data"]) <= 1
                found += [run["run_id"] for run in page["data"]]
        assert found == begun[::-1]

    async def test_history_that_was_brought_along_has_not_run_here(self, server: Server) -> None:
        history = [{"role": "user", "content": "one"}, {"role": "assistant", "content": "two"}]
        async with server.http() as http:
            begun = await begin(http, "three", conversation_history=history)
            await ended(http, begun["run_id"])
            listed = (await http.get("/v1/runs", params={"session_id": begun["session_id"]})).json()
        assert [run["run_id"] for run in listed["data"]] == [begun["run_id"]]


class TestRestarts:
    async def test_everything_is_there_after_a_crash(self, make_server: MakeServer) -> None:
        server, headers = make_server(), {"Idempotency-Key": "once and for all"}
        async with server.http() as http:
            done = await begin(http, "/think hm\n/say done", headers)
            before = await everything(http, done["run_id"])
            run = await get(http, done["run_id"])
            open_ = await begin(http, "/run echo hi\n/say done")
            asked = await waiting(http, open_["run_id"], "approval.request")
        server.kill()
        server = make_server(data=server.data)
        async with server.http() as http:
            assert await everything(http, done["run_id"]) == before
            assert await everything(http, done["run_id"], after=before[0]["id"]) == before[1:]
            assert await get(http, done["run_id"]) == run
            again = await begin(http, "/think hm\n/say done", headers)
            assert (again["run_id"], again["replayed"]) == (done["run_id"], True)
            waits = await get(http, open_["run_id"])
            assert (waits["status"], waits["approval"]["request_id"]) == ("waiting_for_approval", asked["request_id"])
            async with reading(http, open_["run_id"], after=asked["id"]) as events:
                body = {"choice": "once", "request_id": asked["request_id"]}
                answer = await http.post(f"/v1/runs/{open_['run_id']}/approval", json=body)
                assert answer.status_code == 200
                assert (await until(events, "run.completed"))["output"] == "done"


class TestDeletion:
    async def test_streams_of_a_conversation_that_is_deleted_end(self, server: Server) -> None:
        session = fresh()
        async with server.http() as http, server.http() as other:
            begun = await begin(http, "/sleep 60", session_id=session)
            async with soon(), reading(http, begun["run_id"]) as events:
                await until(events, "run.started")
                assert (await other.delete(f"/api/conversations/{session}")).status_code == 204
                *_, last, closed = [event async for event in events]
            assert (last["event"], last["reason"], last["run_id"]) == ("run.cancelled", "deleted", begun["run_id"])
            assert (last["id"], closed["event"]) == (None, "closed")
            assert code(await http.get(f"/v1/runs/{begun['run_id']}")) == (404, "run_not_found")
