// The Responses API over a WebSocket, as the official OpenAI SDK for Node speaks it.

import assert from "node:assert/strict";
import { test } from "node:test";

import OpenAI from "openai";
import { ResponsesWS } from "openai/resources/responses/ws";

import { key, model, quoted, url } from "./shared.mjs";

const client = new OpenAI({ baseURL: url, apiKey: key, maxRetries: 0 });
const LAST = ["response.completed", "response.incomplete", "response.failed", "error"];

// Sends a request; the events up to the end of its response.
const ask = (socket, request) =>
  new Promise((resolve, reject) => {
    const events = [];
    const take = (event) => {
      events.push(event);
      if (!LAST.includes(event.type)) return;
      socket.off("event", take);
      resolve(events);
    };
    socket.on("event", take);
    socket.once("close", () => reject(new Error("the socket was closed")));
    socket.send({ type: "response.create", model, ...request });
  });

const opened = (t) => {
  const socket = new ResponsesWS(client);
  t.after(() => socket.close());
  socket.on("error", () => {}); // events of the type error reach the test as events
  return socket;
};

test("one connection serves a conversation turn by turn", async (t) => {
  const socket = opened(t);
  const one = (await ask(socket, { input: "one" })).at(-1).response;
  const events = await ask(socket, { input: "two", previous_response_id: one.id });
  assert.equal(events.at(-1).response.output[0].content[0].text, quoted("two"));
  assert.deepEqual(events.map((event) => event.sequence_number), [...events.keys()]);
});

test("a bad request is an error event and the connection stays", async (t) => {
  const socket = opened(t);
  const [refused] = await ask(socket, { input: "hi", previous_response_id: "resp_of_nobody" });
  assert.equal(refused.type, "error");
  assert.equal(refused.error.code, "previous_response_not_found");
  const events = await ask(socket, { input: "hi" });
  assert.equal(events.at(-1).response.output[0].content[0].text, quoted("hi"));
});
