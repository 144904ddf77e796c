// Prints what the official parser has to say about the document on standard input, as JSON.
import { readFileSync } from "node:fs";
import { Parser } from "@asyncapi/parser";

const { document, diagnostics } = await new Parser().parse(readFileSync(0, "utf8"));
console.log(
  JSON.stringify({
    diagnostics: diagnostics.map(({ code, message, path }) => `${code}: ${message} at ${path.join(".")}`),
    channels: document?.channels().all().map((channel) => channel.address()) ?? [],
    messages: document?.messages().all().map((message) => message.name()) ?? [],
    operations: document?.operations().all().map((operation) => operation.action()) ?? [],
    security: document?.securitySchemes().all().map((scheme) => scheme.id()) ?? [],
  }),
);
