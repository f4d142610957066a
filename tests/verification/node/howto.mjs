// Reads {snippet, headers, body, secret} as JSON, one a line; prints the event's id, or null for a refusal.
import { createInterface } from "node:readline";

for await (const line of createInterface({ input: process.stdin })) {
  const { snippet, headers, body, secret } = JSON.parse(line);
  const { verify } = await import(snippet);
  let id = null;
  try {
    id = (await verify(body, headers, secret)).id;
  } catch {
    // refused
  }
  console.log(JSON.stringify(id));
}
