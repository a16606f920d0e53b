/**
 * Changes of rows on the dashboard: by Realtime, and by polling while there is none. supabase-js in the page is
 * the real one; what it speaks to stands in this file, and only says that something has changed.
 */
import { open } from "./dashboard-page.ts";
import { expect, test, user } from "./fixtures.ts";
import type { Page, WebSocketRoute } from "@playwright/test";

/** `[join_ref, ref, topic, event, payload]`, Phoenix' protocol 2.0.0. */
type Message = [string | null, string | null, string, string, { config?: { postgres_changes: object[] } }];

/** A server of Realtime that answers joins, leaves and heartbeats. */
class Realtime {
  /** Channels that were joined, in order. */
  readonly joined: { topic: string; reference: string | null }[] = [];
  away = false;
  /** Whether it listens to the database for a channel: it tells after the join, and may be unable to. */
  listens: "ok" | "error" = "ok";
  private socket: WebSocketRoute | undefined;

  async stand(page: Page): Promise<void> {
    await page.route("**/config.json", async (route) => {
      const response = await route.fetch();
      await route.fulfill({ response, json: { ...((await response.json()) as object), realtime: true } });
    });
    await page.routeWebSocket(/\/realtime\/v1\/websocket\?.*vsn=2\.0\.0/, (socket) => {
      if (this.away) return void socket.close();
      this.socket = socket;
      socket.onMessage((text) => this.answer(JSON.parse(text.toString()) as Message));
    });
  }

  private answer([join, reference, topic, event, payload]: Message): void {
    const changes = payload.config?.postgres_changes.map((asked, at) => ({ ...asked, id: at + 1 }));
    this.send([join, reference, topic, "phx_reply", { status: "ok", response: changes ? { postgres_changes: changes } : {} }]);
    if (event !== "phx_join") return;
    this.send([join, null, topic, "system", { channel: topic, extension: "postgres_changes", status: this.listens, message: "" }]);
    this.joined.push({ topic, reference: join });
  }

  private send(message: unknown[]): void {
    this.socket?.send(JSON.stringify(message));
  }

  change(): void {
    const { topic, reference } = this.joined.at(-1)!;
    const data = { schema: "public", table: "alert_rule_status", type: "UPDATE", commit_timestamp: null, columns: [], record: {}, old_record: {}, errors: null };
    this.send([reference, null, topic, "postgres_changes", { ids: [1], data }]);
  }

  close(): void {
    const { topic, reference } = this.joined.at(-1)!;
    this.send([reference, reference, topic, "phx_close", {}]);
  }

  async cut(): Promise<void> {
    this.away = true;
    await this.socket?.close();
  }
}

/** How often the page has read the statuses of rules. */
function reads(page: Page): { count: number } {
  const read = { count: 0 };
  page.on("request", (request) => void (request.method() === "GET" && request.url().includes("/alert_rule_status?") && read.count++));
  return read;
}

/** Longer than the page's interval of polling. */
const NO_POLL_MS = 4000;

test("a change is read when Realtime tells of it, and nothing is asked before", async ({ page, stack, errors: _ }) => {
  const realtime = new Realtime();
  await realtime.stand(page);
  await open(page, stack, user(stack, "viewer"), "rules");
  await expect.poll(() => realtime.joined.length).toBe(1);
  // What happened before it listened is read once.
  await page.waitForTimeout(1000);
  const read = reads(page);
  await page.waitForTimeout(NO_POLL_MS);
  expect(read.count).toBe(0);
  realtime.change();
  await expect.poll(() => read.count).toBe(1);
});

test("without Realtime rows are polled, and once it is back they are not", async ({ page, stack, errors: _ }) => {
  test.setTimeout(90_000);
  const realtime = new Realtime();
  await realtime.stand(page);
  await open(page, stack, user(stack, "viewer"), "rules");
  await expect.poll(() => realtime.joined.length).toBe(1);
  await realtime.cut();
  const read = reads(page);
  await expect.poll(() => read.count).toBeGreaterThan(1);
  realtime.away = false;
  await expect.poll(() => realtime.joined.length, { timeout: 40_000 }).toBe(2);
  await page.waitForTimeout(1000);
  read.count = 0;
  await page.waitForTimeout(NO_POLL_MS);
  expect(read.count).toBe(0);
});

// supabase-js says SUBSCRIBED although the server cannot listen: https://github.com/supabase/realtime/issues/282
test("rows are polled while Realtime does not listen to their table", async ({ page, stack, errors: _ }) => {
  const realtime = new Realtime();
  realtime.listens = "error";
  await realtime.stand(page);
  await open(page, stack, user(stack, "viewer"), "rules");
  await expect.poll(() => realtime.joined.length).toBe(1);
  const read = reads(page);
  await expect.poll(() => read.count).toBeGreaterThan(1);
});

test("a channel that the server closes is joined again", async ({ page, stack, errors: _ }) => {
  test.setTimeout(60_000);
  const realtime = new Realtime();
  await realtime.stand(page);
  await open(page, stack, user(stack, "viewer"), "rules");
  await expect.poll(() => realtime.joined.length).toBe(1);
  realtime.close();
  await expect.poll(() => realtime.joined.length, { timeout: 40_000 }).toBe(2);
  expect(realtime.joined[1]!.topic).not.toBe(realtime.joined[0]!.topic);
});
