// A remote control for the library: whoever is at stdin calls it, line by line of JSON. remote.py is the other end.
//
// In:  {id, do: "make" | "call" | "get" | "next", ...} asks; {answer, value | error} answers a callback of ours.
// Out: {id, value | error} answers; {callback, call, args} calls a function that was given as {"$callback": n}.
// What is no plain JSON stays here and travels as {"$handle": n}; the same object always has the same number.

import { createInterface } from "node:readline";
import WebSocket from "ws";
import * as library from "../../examples/js-client/hermes-ws.js";

const TOLD = ["code", "path", "details", "retryable", "retry_after_ms", "reason", "snapshot"];
const objects = new Map();
const handles = new Map();
const awaited = new Map();
let calls = 0;

const say = (frame) => process.stdout.write(JSON.stringify(frame) + "\n");

function handle(object) {
  if (!handles.has(object)) {
    handles.set(object, handles.size + 1);
    objects.set(handles.size, object);
  }
  return handles.get(object);
}

const isPlain = (value) => [Object.prototype, null].includes(Object.getPrototypeOf(value));
const mapped = (value, change) => Object.fromEntries(Object.entries(value).map(([key, one]) => [key, change(one)]));

function outward(value) {
  if (value === null || !["object", "function"].includes(typeof value)) return value;
  if (Array.isArray(value)) return value.map(outward);
  if (value instanceof Error) return { $error: failure(value) };
  return isPlain(value) ? mapped(value, outward) : { $handle: handle(value) };
}

function inward(value) {
  if (value === null || typeof value !== "object") return value;
  if (Array.isArray(value)) return value.map(inward);
  if ("$handle" in value) return objects.get(value.$handle);
  if ("$callback" in value) return (...args) => callBack(value.$callback, args);
  return mapped(value, inward);
}

function callBack(callback, args) {
  calls += 1;
  say({ callback, call: calls, args: args.map(outward) });
  return new Promise((resolve, reject) => awaited.set(calls, { resolve, reject }));
}

const failure = (error) => ({
  name: error.constructor.name,
  message: error.message,
  fields: mapped(Object.fromEntries(TOLD.filter((name) => name in error).map((name) => [name, error[name]])), outward),
});

const acts = {
  make: ({ what, args }) =>
    new library[what](...(what === "HermesClient" ? [{ WebSocket, ...inward(args[0]) }] : inward(args))),
  call({ on, path, args, look, listen }) {
    const names = path.split(".");
    const method = names.pop();
    const owner = names.reduce((object, name) => object[name], objects.get(on));
    const result = owner[method](...inward(args));
    // At once, as who programs here would; whoever asked us is far away.
    if (look) void result[look];
    for (const [type, listener] of Object.entries(inward(listen ?? {}))) result.on(type, listener);
    return result;
  },
  get: ({ on, path }) => path.split(".").reduce((object, name) => object?.[name], objects.get(on)),
  iterate: ({ on }) => objects.get(on)[Symbol.asyncIterator](),
  next: ({ on, most }) => pulled(objects.get(on), most),
};

/** At least one of an iterator's values, and up to `most` of them if they are wanted together. */
async function pulled(iterator, most) {
  const values = [];
  while (values.length < most) {
    const { done, value } = await iterator.next();
    if (done) return { done: true, values };
    values.push(value);
  }
  return { done: false, values };
}

async function carryOut(order) {
  try {
    say({ id: order.id, value: outward((await acts[order.do](order)) ?? null) });
  } catch (error) {
    say({ id: order.id, error: failure(error) });
  }
}

for await (const line of createInterface({ input: process.stdin })) {
  const order = JSON.parse(line);
  if (!("answer" in order)) {
    void carryOut(order);
    continue;
  }
  const { resolve, reject } = awaited.get(order.answer);
  awaited.delete(order.answer);
  if ("error" in order) reject(new Error(order.error));
  else resolve(inward(order.value));
}
