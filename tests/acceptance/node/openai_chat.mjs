// Chat completions, as the official OpenAI SDK for Node makes them.

import assert from "node:assert/strict";
import { test } from "node:test";

import OpenAI from "openai";
import { zodResponseFormat } from "openai/helpers/zod";
import { z } from "zod";

import { key, model, pixel, quoted, url, weather } from "./shared.mjs";

const client = new OpenAI({ baseURL: url, apiKey: key, maxRetries: 0, timeout: 15_000 });
const says = (content) => [{ role: "user", content }];
const tool = { type: "function", function: { name: "get_weather", parameters: weather } };

test("a message is answered", async () => {
  const answer = await client.chat.completions.create({ model, messages: says("hi") });
  assert.equal(answer.choices[0].message.content, quoted("hi"));
  assert.equal(answer.choices[0].finish_reason, "stop");
  assert.ok(answer.usage.total_tokens > 0);
});

test("the headers tell the conversation and the run", async () => {
  const { response } = await client.chat.completions.create({ model, messages: says("hi") }).withResponse();
  assert.match(response.headers.get("x-hermes-run-id"), /^run_/);
  assert.ok(response.headers.get("x-hermes-conversation-id"));
});

test("a stream brings the same text in pieces, and its usage at the end", async () => {
  const stream = await client.chat.completions.create({
    model,
    messages: says("/think Hm.\n/tool list_files {}\n/say There."),
    stream: true,
    stream_options: { include_usage: true },
  });
  let [text, thought, usage] = ["", "", null];
  for await (const chunk of stream) {
    text += chunk.choices[0]?.delta.content ?? "";
    thought += chunk.choices[0]?.delta.reasoning_content ?? "";
    usage = chunk.usage ?? usage;
  }
  assert.equal(text.trim(), "There.");
  assert.equal(thought, "Hm.");
  assert.ok(usage.total_tokens > 0);
});

test("the SDK's own accumulation of a stream comes to the whole answer", async () => {
  const whole = await client.chat.completions.stream({ model, messages: says("hi") }).finalChatCompletion();
  assert.equal(whole.choices[0].message.content, quoted("hi"));
});

for (const stream of [false, true]) {
  test(`the SDK's own tool loop calls the function and ends, stream: ${stream}`, async () => {
    const called = [];
    const runner = client.chat.completions.runTools({
      model,
      stream,
      messages: says("What is the weather in Paris?"),
      tools: [
        {
          type: "function",
          function: {
            name: "get_weather",
            parameters: weather,
            parse: JSON.parse,
            function: async (given) => {
              called.push(given);
              return "Nineteen degrees.";
            },
          },
        },
      ],
    });
    assert.match(await runner.finalContent(), /Nineteen degrees\./);
    assert.equal(called.length, 1);
    assert.ok(called[0].city);
  });
}

test("a tool choice of none lets the agent talk", async () => {
  const answer = await client.chat.completions.create({
    model,
    messages: says("Weather!"),
    tools: [tool],
    tool_choice: "none",
  });
  assert.equal(answer.choices[0].finish_reason, "stop");
});

test("a structured answer is parsed", async () => {
  const City = z.object({ name: z.string(), inhabitants: z.number().int(), twins: z.array(z.string()) });
  const answer = await client.chat.completions.parse({
    model,
    messages: says("Describe Paris."),
    response_format: zodResponseFormat(City, "city"),
  });
  City.parse(answer.choices[0].message.parsed);
});

test("an image is taken", async () => {
  const content = [
    { type: "text", text: "What is it?" },
    { type: "image_url", image_url: { url: pixel, detail: "low" } },
  ];
  const answer = await client.chat.completions.create({ model, messages: says(content) });
  assert.match(answer.choices[0].message.content, /What is it\?/);
});

test("errors are the SDK's own", async () => {
  const ask = (given) => client.chat.completions.create({ model, messages: says("hi"), ...given });
  const wrong = new OpenAI({ baseURL: url, apiKey: "wrong", maxRetries: 0 });
  await assert.rejects(wrong.chat.completions.create({ model, messages: says("hi") }), OpenAI.AuthenticationError);
  await assert.rejects(ask({ model: "gpt-none" }), (error) => {
    assert.ok(error instanceof OpenAI.NotFoundError);
    assert.equal(error.code, "model_not_found");
    return true;
  });
  await assert.rejects(ask({ messages: [{ role: "user", content: 5 }] }), (error) => {
    assert.ok(error instanceof OpenAI.BadRequestError);
    assert.equal(error.param, "messages[0].content");
    return true;
  });
  await assert.rejects(ask({ messages: says("/fail model_rate_limited") }), OpenAI.RateLimitError);
});

test("a stream that breaks off throws", async () => {
  const stream = await client.chat.completions.create({
    model,
    messages: says("/say So far.\n/fail context_length"),
    stream: true,
  });
  let text = "";
  const read = async () => {
    for await (const chunk of stream) text += chunk.choices[0]?.delta.content ?? "";
  };
  await assert.rejects(read, OpenAI.APIError);
  assert.equal(text, "So far.");
});

test("models are listed", async () => {
  const names = [];
  for await (const one of client.models.list()) names.push(one.id);
  assert.deepEqual(names, [model, "demo"]);
});
