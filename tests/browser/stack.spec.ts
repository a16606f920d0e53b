/** The stack that the other specs run against, as pages of different origins see it. */
import { createServer, type Server } from "node:http";
import type { AddressInfo } from "node:net";
import { expect, memberOfBoth, test, token, user } from "./fixtures.ts";
import type { Stack } from "./stack.ts";

const QUERY = "/prometheus/api/v1/query?query=count(hub_temperature_celsius)";

/** What a page of an origin can read of the proxy's answer, as its script sees it. */
async function readFrom(page: import("@playwright/test").Page, origin: string, stack: Stack, bearer: string) {
  await page.goto(origin);
  return page.evaluate(
    async ({ url, bearer }) => {
      try {
        const answer = await fetch(url, { headers: { Authorization: `Bearer ${bearer}` } });
        return { status: answer.status, id: answer.headers.get("X-Request-Id"), body: (await answer.json()) as unknown };
      } catch (error) {
        return { refused: String(error) };
      }
    },
    { url: stack.proxy + QUERY, bearer },
  );
}

let plain: Server;

/** A page without a policy of its own, at any name of this machine. */
test.beforeAll(async () => {
  plain = createServer((_, answer) => answer.setHeader("content-type", "text/html").end("<!doctype html><title>plain</title>"));
  await new Promise<void>((listening) => plain.listen(0, "127.0.0.1", listening));
});
test.afterAll(() => void plain.close());

function port(): number {
  return (plain.address() as AddressInfo).port;
}

test("a page of a foreign origin reads nothing, even with a good token", async ({ page, stack }) => {
  const bearer = await token(stack, user(stack, "viewer"));
  // Neither the dashboard's port on another name, nor the name with another port, nor a preview of a preview.
  for (const host of ["localhost", "evil.localhost", "a.preview.localhost"]) {
    const seen = await readFrom(page, `http://${host}:${port()}`, stack, bearer);
    expect(seen, host).toEqual({ refused: "TypeError: Failed to fetch" });
  }
});

test("the dashboard's origin and its previews read answers, and names like them do not", async ({ page, stack }) => {
  expect(stack.dashboard, "scripts/dashboard builds it").not.toBeNull();
  const bearer = await token(stack, user(stack, "viewer"));
  const dashboard = new URL(stack.dashboard ?? "");
  // The dashboard's own page: its policy lets it connect to the proxy, whatever name it was opened by.
  const read = (host: string) => readFrom(page, `http://${host}:${dashboard.port}`, stack, bearer);
  for (const host of ["localhost", "branch-1.preview.localhost"]) {
    expect(await read(host), host).toMatchObject({ status: 200, id: expect.any(String), body: { status: "success" } });
  }
  for (const host of ["preview.localhost", "a.b.preview.localhost", "evil-preview.localhost"]) {
    expect(await read(host), host).toEqual({ refused: "TypeError: Failed to fetch" });
  }
});

test("hubs of A and B move, have a day of history, and stay apart", async ({ request, stack }) => {
  const [a, b] = stack.organisations;
  const ask = async (bearer: string, query: string, organisation?: string, time?: number) => {
    const params: Record<string, string> = { query };
    if (time) params.time = String(time);
    const headers: Record<string, string> = { Authorization: `Bearer ${bearer}` };
    if (organisation) headers["X-Scope-OrgID"] = organisation;
    const answer = await request.get(`${stack.proxy}/prometheus/api/v1/query`, { params, headers });
    const said = (await answer.json()) as { data: { result: { metric: { hub: string }; value: [number, string] }[] } };
    return said.data.result;
  };
  const both = await token(stack, memberOfBoth(stack));
  const hubs = async (id: string | undefined) => (await ask(both, "hub_battery_volts", id)).map((one) => one.metric.hub).sort();
  expect(await hubs(a?.id)).toEqual(["barn-north", "barn-south", "cold-store", "greenhouse", "pump-house"]);
  expect(await hubs(b?.id)).toEqual(["boiler-room", "glasshouse-1", "glasshouse-2"]);
  const viewer = await token(stack, user(stack, "viewer"));
  const counter = async () => Number((await ask(viewer, 'hub_samples_total{hub="barn-north"}'))[0]?.value[1]);
  const before = await counter();
  await expect.poll(counter, { timeout: 15_000 }).toBeGreaterThan(before);
  const hoursAgo = (hours: number) => Math.floor(Date.now() / 1000) - hours * 3600;
  for (const hours of [1, 3, 12, 23]) {
    expect(await ask(viewer, "hub_battery_volts", undefined, hoursAgo(hours)), `${hours} h ago`).toHaveLength(6);
  }
});
