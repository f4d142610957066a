// Reads {headers, body, secret} as JSON, one a line, and prints which libraries accept each.
import { createInterface } from "node:readline";
import OpenAI from "openai";
import * as standardwebhooks from "standardwebhooks";
import * as svix from "svix";

const client = new OpenAI({ apiKey: "not used to verify" });

const judges = {
  openai: [
    ({ body, headers, secret }) => client.webhooks.unwrap(body, headers, secret),
    OpenAI.InvalidWebhookSignatureError,
  ],
  standardwebhooks: [
    ({ body, headers, secret }) => new standardwebhooks.Webhook(secret).verify(body, headers),
    standardwebhooks.WebhookVerificationError,
  ],
  svix: [
    ({ body, headers, secret }) => new svix.Webhook(secret).verify(body, headers),
    svix.WebhookVerificationError,
  ],
};

async function accepts([verify, Refusal], hook) {
  try {
    await verify(hook);
    return true;
  } catch (error) {
    if (error instanceof Refusal) return false;
    throw error; // a crash is no verdict
  }
}

for await (const line of createInterface({ input: process.stdin })) {
  const hook = JSON.parse(line);
  const accepting = [];
  for (const [name, judge] of Object.entries(judges)) {
    if (await accepts(judge, hook)) accepting.push(name);
  }
  console.log(JSON.stringify(accepting));
}
