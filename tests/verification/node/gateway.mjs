// Reads {baseURL, hook, input} as JSON; uses the gateway as if it were OpenAI, and prints what it saw.
import { readFileSync } from "node:fs";
import OpenAI, { toFile } from "openai";

const { baseURL, hook, input } = JSON.parse(readFileSync(0, "utf8"));
const client = new OpenAI({ baseURL, apiKey: "bb_any", maxRetries: 0 });

const file = await client.files.create({ file: await toFile(Buffer.from(input), "in.jsonl"), purpose: "batch" });
const batch = await client.batches.create({
  input_file_id: file.id,
  endpoint: "/v1/chat/completions",
  completion_window: "24h",
  metadata: { webhook_url: hook },
});
const files = [];
for await (const one of client.files.list()) files.push(one.id);
const batches = [];
for await (const one of client.batches.list()) batches.push(one.id);

let refusal;
try {
  await client.files.retrieve("file-never");
} catch (error) {
  refusal = { name: error.constructor.name, status: error.status };
}

console.log(
  JSON.stringify({
    file: file.id,
    files,
    retrieved: (await client.files.retrieve(file.id)).bytes,
    content: await (await client.files.content(file.id)).text(),
    batch: batch.id,
    batches,
    status: (await client.batches.retrieve(batch.id)).status,
    cancelled: (await client.batches.cancel(batch.id)).status,
    deleted: (await client.files.delete(file.id)).deleted,
    refusal,
  }),
);
