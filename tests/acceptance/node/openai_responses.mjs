// The Responses API and conversations, as the official OpenAI SDK for Node speaks them.

import assert from "node:assert/strict";
import { test } from "node:test";

import OpenAI from "openai";
import { zodTextFormat } from "openai/helpers/zod";
import { z } from "zod";

import { key, model, pixel, quoted, url, weather } from "./shared.mjs";

const client = new OpenAI({ baseURL: url, apiKey: key, maxRetries: 0, timeout: 15_000 });
const tool = { type: "function", name: "get_weather", parameters: weather, strict: true };

const collect = async (stream) => {
  const events = [];
  for await (const event of stream) events.push(event);
  return events;
};

test("an input is answered", async () => {
  const response = await client.responses.create({ model, input: "hi" });
  assert.equal(response.output_text, quoted("hi"));
  assert.equal(response.status, "completed");
});

test("text and an image are taken", async () => {
  const content = [
    { type: "input_text", text: "What is it?" },
    { type: "input_image", image_url: pixel, detail: "auto" },
  ];
  const response = await client.responses.create({ model, input: [{ role: "user", content }] });
  assert.match(response.output_text, /What is it\?/);
});

test("a stream has numbered events and ends in the whole response", async () => {
  const events = await collect(await client.responses.create({ model, input: "hi", stream: true }));
  assert.deepEqual(events.map((event) => event.sequence_number), [...events.keys()]);
  assert.equal(events.at(-1).type, "response.completed");
  assert.equal(events.at(-1).response.output[0].content[0].text, quoted("hi"));
});

test("the SDK's own accumulation of a stream comes to the whole response", async () => {
  const input = "/think Hm.\n/tool list_files {}\n/say There.";
  const whole = await client.responses.stream({ model, input }).finalResponse();
  assert.equal(whole.output_text, "There.");
  assert.deepEqual(
    whole.output.map((item) => item.type),
    ["reasoning", "function_call", "function_call_output", "message"],
  );
});

test("a structured answer is parsed", async () => {
  const City = z.object({ name: z.string(), inhabitants: z.number().int() });
  const response = await client.responses.parse({
    model,
    input: "Describe Paris.",
    text: { format: zodTextFormat(City, "city") },
  });
  City.parse(response.output_parsed);
});

test("a response is retrieved, gone on from and deleted", async () => {
  const first = await client.responses.create({ model, input: "one" });
  const second = await client.responses.create({ model, input: "two", previous_response_id: first.id });
  assert.equal(second.output_text, quoted("two"));
  assert.equal((await client.responses.retrieve(first.id)).output_text, quoted("one"));
  const said = [];
  for await (const item of client.responses.inputItems.list(first.id)) said.push(item.type);
  assert.deepEqual(said, ["message"]);
  await client.responses.delete(first.id);
  await assert.rejects(client.responses.retrieve(first.id), OpenAI.NotFoundError);
});

test("a background response is followed from any event, and another is cancelled", async () => {
  const begun = await client.responses.create({ model, input: "/stream 60 5", background: true });
  const all = await collect(await client.responses.retrieve(begun.id, { stream: true }));
  assert.equal(all.at(-1).type, "response.completed");
  const rest = await collect(await client.responses.retrieve(begun.id, { stream: true, starting_after: 7 }));
  assert.deepEqual(rest, all.slice(8));
  const other = await client.responses.create({ model, input: "/sleep 60", background: true });
  assert.equal((await client.responses.cancel(other.id)).status, "cancelled");
});

test("a function makes its round trip", async () => {
  const first = await client.responses.create({ model, input: "What is the weather in Paris?", tools: [tool] });
  const call = first.output.find((item) => item.type === "function_call");
  assert.ok(JSON.parse(call.arguments).city);
  const output = { type: "function_call_output", call_id: call.call_id, output: "Nineteen degrees." };
  const second = await client.responses.create({
    model,
    input: [output],
    previous_response_id: first.id,
    tools: [tool],
  });
  assert.match(second.output_text, /Nineteen degrees\./);
});

test("an approval is asked for and given", async () => {
  const first = await client.responses.create({ model, input: "/run echo hello\n/say Done." });
  const asked = first.output.find((item) => item.type === "mcp_approval_request");
  const answer = { type: "mcp_approval_response", approval_request_id: asked.id, approve: true };
  const second = await client.responses.create({ model, input: [answer], previous_response_id: first.id });
  assert.equal(second.output_text, "Done.");
});

test("a conversation holds what its responses were about", async () => {
  const conversation = await client.conversations.create({ metadata: { topic: "tests" } });
  await client.responses.create({ model, input: "one", conversation: conversation.id });
  const said = [];
  for await (const item of client.conversations.items.list(conversation.id, { order: "asc" })) {
    said.push(item.content[0].text);
  }
  assert.deepEqual(said, ["one", quoted("one")]);
  assert.equal((await client.conversations.delete(conversation.id)).deleted, true);
  await assert.rejects(client.conversations.retrieve(conversation.id), OpenAI.NotFoundError);
});

test("errors are the SDK's own", async () => {
  await assert.rejects(client.responses.create({ model: "gpt-none", input: "hi" }), OpenAI.NotFoundError);
  await assert.rejects(client.responses.create({ model, input: 5 }), OpenAI.BadRequestError);
  await assert.rejects(client.responses.retrieve("resp_of_nobody"), OpenAI.NotFoundError);
});
