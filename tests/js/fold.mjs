// Folds logs with the library: a line of JSON in for each log, a line out. test_fold.py is the other end.
//
// In: {snapshot | null, frames, at: [after how many frames a state is wanted]}. Out: {states, complaints}.
// Complaints are broken promises about objects: an earlier state that changed afterwards, or something that is another
// object although the frame was not about it.

import { createInterface } from "node:readline";
import { Fold } from "../../examples/js-client/hermes-ws.js";

const named = (frame) => [frame.item_id, frame.call_id, frame.interaction_id, frame.steer_id, frame.run_id];
const idOf = (one) => one.interaction_id ?? one.call_id ?? one.item_id ?? one.run_id;
const SPEAKS = ["message", "reasoning", "item", "tool", "run"];

/** What of `after` is another object than in `before`, although the frame was not about it. */
function remade(frame, before, after) {
  const [topic] = frame.type.split(".");
  const lists = { items: SPEAKS, interactions: ["interaction"], queue: ["run"], config: ["conversation"] };
  const found = Object.keys(lists).filter((name) => !lists[name].includes(topic) && before[name] !== after[name]);
  for (const name of ["items", "interactions"]) {
    const were = new Map(before[name].map((one) => [idOf(one), one]));
    for (const one of after[name]) {
      const was = were.get(idOf(one));
      if (was && was !== one && !named(frame).includes(idOf(one))) found.push(`${name}: ${idOf(one)}`);
    }
  }
  return found;
}

function folded({ snapshot, frames, at }) {
  const fold = snapshot === null ? new Fold() : new Fold(snapshot);
  const states = [];
  const complaints = [];
  let last = fold.state;
  const note = (count) => {
    const state = fold.state;
    if (fold.state !== state) complaints.push(`another state after frame ${count}, and nothing happened`);
    states.push({ state, text: JSON.stringify(state) });
  };
  if (at.includes(0)) note(0);
  frames.forEach((frame, n) => {
    fold.apply(frame);
    if (!at.includes(n + 1)) return;
    note(n + 1);
    if (at.includes(n))
      for (const one of remade(frame, last, fold.state)) complaints.push(`${one} was made anew by ${frame.type}`);
    last = fold.state;
  });
  for (const { state, text } of states)
    if (JSON.stringify(state) !== text) complaints.push(`the state at ${state.at} was changed afterwards`);
  return { states: states.map(({ text }) => JSON.parse(text)), complaints };
}

for await (const line of createInterface({ input: process.stdin })) {
  let answer;
  try {
    answer = folded(JSON.parse(line));
  } catch (error) {
    answer = { states: [], complaints: [error.stack] };
  }
  process.stdout.write(JSON.stringify(answer) + "\n");
}
