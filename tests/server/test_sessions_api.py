"""``/api/sessions`` over HTTP: hermes-agent's sessions are our conversations."""

from __future__ import annotations

import asyncio
import json
from typing import Any

import httpx2
import pytest

from tests.conftest import MakeServer
from tests.pictures import data_url, picture
from tests.wire import Json, Server, fresh, soon

SESSION_FIELDS = {
    "id", "source", "user_id", "model", "title", "started_at", "ended_at", "end_reason", "message_count",
    "tool_call_count", "input_tokens", "output_tokens", "cache_read_tokens", "cache_write_tokens", "reasoning_tokens",
    "estimated_cost_usd", "actual_cost_usd", "api_call_count", "parent_session_id", "last_active", "preview",
    "has_system_prompt", "has_model_config",
}  # fmt: skip


async def create(http: httpx2.AsyncClient, **fields: Any) -> Json:
    answer = await http.post("/api/sessions", json=fields)
    assert answer.status_code == 201, answer.text
    assert answer.json()["object"] == "hermes.session"
    session: Json = answer.json()["session"]
    return session


async def say(http: httpx2.AsyncClient, session_id: str, text: Any, **more: Any) -> Json:
    answer = await http.post(f"/api/sessions/{session_id}/chat", json={"message": text, **more})
    assert answer.status_code == 200, answer.text
    assert answer.headers["X-Hermes-Session-Id"] == session_id
    body: Json = answer.json()
    return body


async def stream(
    http: httpx2.AsyncClient, session_id: str, text: Any, headers: dict[str, str] | None = None
) -> list[tuple[str, Json]]:
    """The named events of a chat, to its end."""
    found: list[tuple[str, Json]] = []
    path, name = f"/api/sessions/{session_id}/chat/stream", ""
    async with soon(), http.stream("POST", path, json={"message": text}, headers=headers) as answer:
        assert answer.headers["content-type"].startswith("text/event-stream")
        async for line in answer.aiter_lines():
            if line.startswith("event: "):
                name = line.removeprefix("event: ")
            elif line.startswith("data: "):
                found.append((name, json.loads(line.removeprefix("data: "))))
    return found


async def messages(http: httpx2.AsyncClient, session_id: str) -> list[Json]:
    answer = (await http.get(f"/api/sessions/{session_id}/messages")).json()
    assert (answer["object"], answer["session_id"]) == ("list", session_id)
    found: list[Json] = answer["data"]
    return found


def code(answer: httpx2.Response) -> tuple[int, str]:
    return answer.status_code, answer.json()["error"]["code"]


class TestResources:
    async def test_a_session_is_made_and_looked_up(self, server: Server) -> None:
        async with server.http() as http:
            made = await create(http, title="  A  trip ", system_prompt="be brief", model="demo")
            found = (await http.get(f"/api/sessions/{made['id']}")).json()
        assert made.keys() >= SESSION_FIELDS
        assert found == {"object": "hermes.session", "session": made}
        assert (made["title"], made["has_system_prompt"], made["has_model_config"]) == ("A trip", True, True)
        assert (made["message_count"], made["source"], made["status"]) == (0, "api_server", "idle")

    async def test_before_its_first_run_its_model_is_the_one_that_was_asked_for(self, make_server: MakeServer) -> None:
        server = make_server(settings='[server]\nmodel_name = "house"\n')
        async with server.http() as http:
            assert (await create(http, model="house"))["model"] == "house"
            assert (await create(http))["model"] == "house"
            assert (await create(http, model="demo"))["model"] == "demo"

    async def test_it_is_a_conversation_and_every_conversation_is_one(self, server: Server) -> None:
        conversation = fresh()
        async with server.socket(conversation) as person, server.http() as http:
            await person.ok("run.start", input="hello there")
            async with soon():
                await person.until("run.completed")
            session = (await http.get(f"/api/sessions/{conversation}")).json()["session"]
            assert (session["message_count"], session["preview"]) == (2, "hello there")
            made = await create(http)
            assert (await server.get(f"/api/conversations/{made['id']}/events"))["head"] > 0

    async def test_an_id_may_be_chosen_once(self, server: Server) -> None:
        session_id = fresh()
        async with server.http() as http:
            answers = await asyncio.gather(*(http.post("/api/sessions", json={"id": session_id}) for _ in range(4)))
            assert sorted(answer.status_code for answer in answers) == [201, 409, 409, 409]
            again = await http.post("/api/sessions", json={"session_id": session_id})
        assert code(again) == (409, "session_exists")

    @pytest.mark.parametrize(
        ("body", "expected"),
        [
            ({"id": "no spaces"}, "invalid_session_id"),
            ({"id": "new"}, "invalid_session_id"),
            ({"id": "a\nb"}, "invalid_session_id"),
            ({"id": 5}, "invalid_session_id"),
            ({"title": 5}, "invalid_title"),
            ({"system_prompt": []}, "invalid_system_prompt"),
        ],
    )
    async def test_what_is_wrong_has_its_code(self, server: Server, body: Json, expected: str) -> None:
        async with server.http() as http:
            assert code(await http.post("/api/sessions", json=body)) == (400, expected)

    async def test_one_that_is_not_there_is_not_found(self, server: Server) -> None:
        async with server.http() as http:
            for method, path in [
                ("GET", ""),
                ("PATCH", ""),
                ("DELETE", ""),
                ("GET", "/messages"),
                ("POST", "/fork"),
                ("POST", "/chat"),
                ("POST", "/chat/stream"),
            ]:
                for name in ("nowhere", "no%20name"):
                    answer = await http.request(method, f"/api/sessions/{name}{path}", json={"message": "x"})
                    assert code(answer) == (404, "session_not_found")

    async def test_title_and_end_are_changed(self, server: Server) -> None:
        async with server.http() as http:
            session = await create(http, title="one")
            path = f"/api/sessions/{session['id']}"
            changed = (await http.patch(path, json={"title": "two", "end_reason": "done"})).json()["session"]
            assert (changed["title"], changed["end_reason"]) == ("two", "done")
            assert changed["ended_at"] >= changed["started_at"]
            cleared = (await http.patch(path, json={"title": None})).json()["session"]
            assert (cleared["title"], cleared["end_reason"]) == (None, "done")
            assert code(await http.patch(path, json={"model": "x"})) == (400, "unsupported_session_field")
            assert code(await http.patch(path, json={"title": ["x"]})) == (400, "invalid_title")
            assert code(await http.patch(path, content=b"[]")) == (400, "invalid_json")

    async def test_a_deleted_session_is_gone(self, server: Server) -> None:
        async with server.http() as http:
            session = await create(http)
            answer = await http.delete(f"/api/sessions/{session['id']}")
            assert answer.json() == {"object": "hermes.session.deleted", "id": session["id"], "deleted": True}
            assert code(await http.get(f"/api/sessions/{session['id']}")) == (404, "session_not_found")

    async def test_sessions_are_listed_the_newest_first_in_pages(self, make_server: MakeServer) -> None:
        server = make_server()
        async with server.http() as http:
            made = [(await create(http, title=str(number)))["id"] for number in range(5)]
            await say(http, made[0], "hello")
            expected = [made[0], *reversed(made[1:])]
            whole = (await http.get("/api/sessions")).json()
            assert (whole["object"], whole["limit"], whole["offset"]) == ("list", 50, 0)
            assert whole["has_more"] is False
            assert [session["id"] for session in whole["data"]] == expected
            assert whole["data"][0]["message_count"] == 2
            page = (await http.get("/api/sessions", params={"limit": 2, "offset": 1, "include_children": "1"})).json()
            assert [session["id"] for session in page["data"]] == expected[1:3]
            assert page["has_more"] is True
            assert (await http.get("/api/sessions", params={"source": "api_server"})).json()["data"] == whole["data"]
            assert (await http.get("/api/sessions", params={"source": "telegram"})).json()["data"] == []
            assert (await http.get("/api/sessions", params={"limit": 9999})).json()["limit"] == 200
            assert (await http.get("/api/sessions", params={"limit": "many"})).status_code == 400


class TestForks:
    async def test_a_fork_has_what_was_said(self, server: Server) -> None:
        async with server.http() as http:
            session = await create(http, title="trip")
            await say(http, session["id"], "one")
            answer = await http.post(f"/api/sessions/{session['id']}/fork", json={"title": "other way"})
            assert answer.status_code == 201
            forked = answer.json()["session"]
            assert (forked["parent_session_id"], forked["title"]) == (session["id"], "other way")
            await say(http, forked["id"], "two")
            assert len(await messages(http, session["id"])) == 2
            assert [m["content"] for m in await messages(http, forked["id"]) if m["role"] == "user"] == ["one", "two"]

    async def test_it_may_be_named(self, server: Server) -> None:
        async with server.http() as http:
            session, name = await create(http, title="trip"), fresh()
            forked = (await http.post(f"/api/sessions/{session['id']}/fork", json={"id": name})).json()["session"]
            assert (forked["id"], forked["title"]) == (name, "trip (fork)")
            answer = await http.post(f"/api/sessions/{session['id']}/fork", json={"id": name})
            assert code(answer) == (409, "session_exists")


class TestChat:
    async def test_a_message_is_answered(self, server: Server) -> None:
        async with server.http() as http:
            session = await create(http)
            answer = await say(http, session["id"], "hello there")
            assert (answer["object"], answer["session_id"]) == ("hermes.session.chat.completion", session["id"])
            assert answer["message"]["role"] == "assistant"
            assert "hello there" in answer["message"]["content"]
            assert answer["usage"].keys() >= {"input_tokens", "output_tokens", "total_tokens"}
            user, assistant = await messages(http, session["id"])
            assert (user["role"], user["content"]) == ("user", "hello there")
            assert assistant["content"] == answer["message"]["content"]
            assert (await http.get(f"/v1/runs/{answer['run_id']}")).json()["status"] == "completed"

    async def test_images_come_along(self, server: Server) -> None:
        parts = [{"type": "text", "text": "look"}, {"type": "input_image", "image_url": data_url(picture())}]
        async with server.http() as http:
            session = await create(http)
            await say(http, session["id"], parts)
            user, _ = await messages(http, session["id"])
            assert [part["type"] for part in user["content"]] == ["text", "image_url"]
            image = await http.get(user["content"][1]["image_url"]["url"])
        assert image.headers["content-type"] == "image/png"

    async def test_a_run_that_fails_is_an_error(self, server: Server) -> None:
        async with server.http() as http:
            session = await create(http)
            answer = await http.post(f"/api/sessions/{session['id']}/chat", json={"message": "/fail context_length"})
        assert code(answer) == (400, "context_length_exceeded")

    async def test_a_run_that_is_stopped_is_a_conflict(self, server: Server) -> None:
        async with server.http() as http:
            session = await create(http)
            path = f"/api/sessions/{session['id']}/chat"
            async with server.socket(session["id"]) as person, soon():
                asking = asyncio.create_task(http.post(path, json={"message": "/sleep 60"}))
                await person.until("run.started")
                await person.ok("run.stop")
                assert code(await asking) == (409, "run_cancelled")

    @pytest.mark.parametrize("body", [{}, {"message": ""}, {"message": " "}])
    async def test_nothing_to_say_is_missing(self, server: Server, body: Json) -> None:
        async with server.http() as http:
            session = await create(http)
            path = f"/api/sessions/{session['id']}/chat"
            assert code(await http.post(path, json=body)) == (400, "missing_message")
            assert code(await http.post(f"{path}/stream", json=body)) == (400, "missing_message")
            for given in ("5", "{}", "[]"):
                wrong = {"message": "x", "system_message": json.loads(given)}
                assert code(await http.post(path, json=wrong)) == (400, "invalid_system_message")


class TestStream:
    async def test_it_has_the_events_that_the_clients_know(self, server: Server) -> None:
        async with server.http() as http:
            session = await create(http)
            events = await stream(http, session["id"], '/think hm\n/tool list_files {"path": "."}\n/say done')
        names = [name for name, _ in events]
        assert names[:2] == ["run.started", "message.started"]
        assert names[-3:] == ["assistant.completed", "run.completed", "done"]
        assert {"assistant.delta", "tool.progress", "tool.started", "tool.completed"} <= set(names)
        assert [data["seq"] for _, data in events] == list(range(1, len(events) + 1))
        assert {data["session_id"] for _, data in events} == {session["id"]}
        completed = dict(events)["run.completed"]
        assert [message["role"] for message in completed["messages"]][-1] == "assistant"
        assert dict(events)["assistant.completed"]["content"] == "done"

    async def test_its_run_works_with_the_runs_api(self, server: Server) -> None:
        async with server.http() as http, server.http() as other:
            session = await create(http)
            path = f"/api/sessions/{session['id']}/chat/stream"
            async with soon(), http.stream("POST", path, json={"input": "/run echo hi\n/say done"}) as answer:
                lines = answer.aiter_lines()
                asked: Json = {}
                async for line in lines:
                    if line.startswith("data: ") and '"choices"' in line:
                        asked = json.loads(line.removeprefix("data: "))
                        break
                body = {"choice": "once", "request_id": asked["request_id"]}
                assert (await other.post(f"/v1/runs/{asked['run_id']}/approval", json=body)).status_code == 200
                assert "event: run.completed" in [line async for line in lines]

    async def test_who_goes_away_finds_the_answer_later(self, server: Server) -> None:
        async with server.http() as http:
            session = await create(http)
            path, run_id = f"/api/sessions/{session['id']}/chat/stream", ""
            async with soon(), http.stream("POST", path, json={"input": "/sleep 0.3\n/say done"}) as answer:
                async for line in answer.aiter_lines():
                    if line.startswith("data: "):
                        run_id = json.loads(line.removeprefix("data: "))["run_id"]
                        break
            async with soon(), http.stream("GET", f"/v1/runs/{run_id}/events") as answer:
                assert ": stream closed" in [line async for line in answer.aiter_lines()]
            assert (await messages(http, session["id"]))[-1]["content"] == "done"

    async def test_it_ends_when_the_session_is_deleted(self, server: Server) -> None:
        async with server.http() as http, server.http() as other:
            session = await create(http)
            path, names = f"/api/sessions/{session['id']}/chat/stream", list[str]()
            async with soon(), http.stream("POST", path, json={"input": "/sleep 60"}) as answer:
                async for line in answer.aiter_lines():
                    if line.startswith("event: "):
                        names.append(line.removeprefix("event: "))
                    if names == ["run.started"] and line.startswith("data: "):
                        assert (await other.delete(f"/api/sessions/{session['id']}")).status_code == 200
            assert names[-2:] == ["error", "done"]


class TestOnce:
    async def test_a_session_is_made_once(self, server: Server) -> None:
        headers = {"Idempotency-Key": fresh("key")}
        async with server.http() as http:
            first = await http.post("/api/sessions", json={"title": "x"}, headers=headers)
            again = await http.post("/api/sessions", json={"title": "x"}, headers=headers)
            other = await http.post("/api/sessions", json={"title": "y"}, headers=headers)
        assert first.status_code == again.status_code == 201
        assert again.headers["Idempotency-Replayed"] == "true"
        assert again.json() == {**first.json(), "replayed": True}
        assert again.headers["X-Hermes-Session-Id"] == first.headers["X-Hermes-Session-Id"]
        assert code(other) == (409, "idempotency_key_conflict")

    async def test_a_fork_is_made_once(self, server: Server) -> None:
        headers = {"Idempotency-Key": fresh("key")}
        async with server.http() as http:
            session = await create(http, title="trip")
            path = f"/api/sessions/{session['id']}/fork"
            first = (await http.post(path, headers=headers)).json()["session"]
            again = await http.post(path, headers=headers)
        assert again.json()["session"]["id"] == first["id"]
        assert again.json()["replayed"] is True

    async def test_a_failure_is_told_again_as_such(self, server: Server) -> None:
        headers, body = {"Idempotency-Key": fresh("key")}, {"message": "/fail model_rate_limited 9"}
        async with server.http() as http:
            session = await create(http)
            path = f"/api/sessions/{session['id']}/chat"
            first = await http.post(path, json=body, headers=headers)
            again = await http.post(path, json=body, headers=headers)
        assert code(first) == code(again) == (429, "rate_limit_exceeded")
        assert {answer.headers["X-Hermes-Session-Id"] for answer in (first, again)} == {session["id"]}
        assert "Idempotency-Replayed" not in first.headers
        assert again.headers["Idempotency-Replayed"] == "true"
        assert "another Idempotency-Key" in again.json()["error"]["message"]

    async def test_a_message_is_said_once_and_answered_again(self, server: Server) -> None:
        headers = {"Idempotency-Key": fresh("key")}
        async with server.http() as http:
            session = await create(http)
            path = f"/api/sessions/{session['id']}/chat"
            first = await http.post(path, json={"message": "hi"}, headers=headers)
            again = await http.post(path, json={"message": "hi"}, headers=headers)
            assert again.headers["Idempotency-Replayed"] == "true"
            assert again.json() == first.json()
            streamed = await stream(http, session["id"], "ho", headers)
            assert await stream(http, session["id"], "ho", headers) == streamed
            assert len(await messages(http, session["id"])) == 4


class TestRestarts:
    async def test_sessions_are_there_after_a_crash(self, make_server: MakeServer) -> None:
        server = make_server()
        async with server.http() as http:
            session = await create(http, title="trip")
            await say(http, session["id"], "one")
            await http.patch(f"/api/sessions/{session['id']}", json={"end_reason": "done"})
            before = (await http.get("/api/sessions")).json()
            said = await messages(http, session["id"])
        server.kill()
        server = make_server(data=server.data)
        async with server.http() as http:
            assert (await http.get("/api/sessions")).json() == before
            assert await messages(http, session["id"]) == said
