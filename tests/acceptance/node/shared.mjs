// What the tests of several clients share: where the server is, a function, what the demo agent says.

export const url = process.env.HERMES_URL;
export const key = process.env.HERMES_KEY;
export const model = "hermes-agent";
export const pixel = process.env.HERMES_PIXEL;

export const quoted = (text) => `This is the demo model. You said: “${text}”.`;

export const weather = {
  type: "object",
  properties: { city: { type: "string", minLength: 1 }, unit: { enum: ["celsius", "fahrenheit"] } },
  required: ["city", "unit"],
  additionalProperties: false,
};
