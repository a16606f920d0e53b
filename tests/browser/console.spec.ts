// The console with a member, an administrator and an operator: who sees what, and what they can do.

import { expect, test } from "@playwright/test";

import { fits, looksRight, open, signIn, useToken, watch } from "./console-page.ts";
import { stack, type Stack, type User } from "./stack.ts";

const VIEWS = ["overview", "organisations", "rules", "devices", "channels", "upstreams", "keys", "limits", "refusals", "config"];
const OF_ADMINISTRATORS = ["Overview", "Organisations", "Rules", "Devices", "Channels", "Limits"];

let now: Stack;
test.beforeAll(() => { now = stack(); });

const userWith = (role: string, organisation?: string): User => {
  const user = now.users.find((one) => one.role === role && (!organisation || one.organisation === organisation));
  if (!user) throw new Error(`the stack has no ${role}`);
  return user;
};

const OF_ONE = ["organisations", "rules", "devices", "channels", "limits"];
const WIDTHS = [390, 1280, 1920];

test("an operator sees every view, on a phone, a desktop and a wide screen, light and dark", async ({ page }) => {
  test.setTimeout(180_000);
  const errors = watch(page);
  const look = async (what: string) => {
    for (const width of WIDTHS) {
      await page.setViewportSize({ width, height: 844 });
      await fits(page, `${what} at ${width} px`);
      // What axe finds depends on the layout, of which there are two, and on the colours.
      if (width === 1920) continue;
      for (const colorScheme of ["light", "dark"] as const) {
        await page.emulateMedia({ colorScheme, reducedMotion: "reduce" });
        await looksRight(page, `${what}, ${width} px, ${colorScheme}`, colorScheme === "light" ? "all" : "colours");
      }
    }
  };
  await page.goto(`${now.proxy}/admin/console`);
  await expect(page.getByLabel("Token")).toBeVisible();
  await look("sign-in");
  await useToken(page, now.proxy, now.operator_token);
  for (const view of VIEWS) {
    await open(page, view);
    await look(view);
  }
  for (const view of OF_ONE) {
    await open(page, view, now.organisations[0].id);
    await look(`${view} of one organisation`);
  }
  expect(errors).toEqual([]);
  expect(page.url()).not.toContain(now.operator_token);
});

test("a member is told in words what it may do, and sees nothing else", async ({ page }) => {
  const errors = watch(page);
  const member = userWith("viewer");
  await signIn(page, now.proxy, member);
  await expect(page.locator(".rail a")).toHaveText(["Overview"]);
  await expect(page.getByText("You are a member.")).toBeVisible();
  await expect(page.getByText("read metrics", { exact: true })).toBeVisible();
  await open(page, "devices", member.organisation);
  await expect(page.getByText("This view is for administrators of an organisation.")).toBeVisible();
  await open(page, "config");
  await expect(page.getByText("This view is for the operators of the proxy.")).toBeVisible();
  // A reload keeps the sign-in; signing out ends it.
  await page.reload();
  await expect(page.locator(".top .who")).toContainText(member.email);
  await page.getByRole("button", { name: "Sign out" }).click();
  await page.reload();
  await expect(page.getByRole("button", { name: "Sign in" })).toBeVisible();
  expect(errors).toEqual([]);
});

test("a wrong token is refused in words, with the request's identifier", async ({ page }) => {
  await page.goto(`${now.proxy}/admin/console`);
  await page.getByLabel("Token").fill("mtpd_nonsense");
  await page.getByRole("button", { name: "Use the token" }).click();
  await expect(page.getByRole("alert")).toContainText(/device key|token/);
  await expect(page.getByRole("alert").getByText("Request")).toBeVisible();
});

test("an administrator sees why a rule is not live, and its own organisation only", async ({ page }) => {
  const errors = watch(page);
  const [a, b] = now.organisations;
  await signIn(page, now.proxy, userWith("admin", a.id));
  await expect(page.locator(".rail a")).toHaveText(OF_ADMINISTRATORS);
  await open(page, "rules", a.id);
  const broken = page.getByRole("row", { name: /TooHumid/ });
  await expect(broken).toContainText("invalid");
  await expect(broken).toContainText("parenthesis");
  await page.getByRole("button", { name: "Show diff" }).click();
  await expect(page.getByRole("heading", { name: /Mimir has what the rows say|A sync would change/ })).toBeVisible();
  await page.getByRole("button", { name: "Sync now" }).click();
  await expect(page.getByRole("heading", { name: "The sync is done" })).toBeVisible({ timeout: 20_000 });
  // Asked for another's, it gets its own.
  await open(page, "rules", b.id);
  await expect(page.locator("main select")).toHaveValue(a.id);
  await open(page, "organisations");
  await expect(page.getByRole("heading", { name: "Members" })).toBeVisible();
  await expect(page.getByRole("cell", { name: "viewer", exact: true }).first()).toBeVisible();
  expect(errors).toEqual([]);
});

test("a device key is shown once, works, and is refused once it is revoked", async ({ page, request }) => {
  const errors = watch(page);
  const [a] = now.organisations;
  await signIn(page, now.proxy, userWith("admin", a.id));
  await open(page, "devices", a.id);
  const name = `<img src=x onerror=alert(1)> hub "${Date.now()}"`;
  await page.getByRole("button", { name: "Create a key" }).click();
  await page.getByLabel("Name of the device").fill(name);
  await page.getByRole("button", { name: "Create", exact: true }).click();
  const key = (await page.locator("[data-key]").textContent()) ?? "";
  expect(key).toMatch(/^mtpd_/);
  await looksRight(page, "the dialog of a key");
  const wide = page.viewportSize();
  await page.setViewportSize({ width: 390, height: 844 });
  const over = await page.locator("dialog").evaluate((box) => box.scrollWidth - box.clientWidth);
  expect(over, "the dialog of a key on a phone").toBeLessThanOrEqual(0);
  await page.keyboard.press("Escape");
  await expect(page.locator("[data-key]"), "Esc does not lose the key").toBeVisible();
  if (wide) await page.setViewportSize(wide);
  for (const sender of ["Prometheus", "Alloy", "Collector", "vmagent", "Telegraf", "curl"]) {
    await page.getByRole("tab", { name: sender }).click();
    const shown = page.getByRole("tabpanel");
    await expect(shown).toContainText(new URL(now.proxy).host);
    // A name that is no plain word is made one: the texts are put into shells and files.
    await expect(shown).not.toContainText("<img");
  }
  const asks = async () => (await request.get(`${now.proxy}/admin/whoami`, { headers: { authorization: `Bearer ${key}` } })).status();
  expect(await asks()).toBe(200);
  await page.getByRole("button", { name: "I have the key" }).click();
  await expect(page.locator("dialog")).toHaveCount(0);
  expect(await page.content()).not.toContain(key);
  const row = page.getByRole("row").filter({ hasText: name });
  await expect(row).toContainText("active");
  await row.getByRole("button", { name: /Revoke/ }).click();
  const sure = page.getByRole("button", { name: "Revoke the key", exact: true });
  await expect(sure).toBeDisabled();
  await page.locator("dialog input").fill("something else");
  await expect(sure).toBeDisabled();
  await page.locator("dialog input").fill(name);
  await sure.click();
  await expect(page.getByRole("row").filter({ hasText: name })).toContainText("revoked");
  await expect.poll(asks).toBe(401);
  expect(errors).toEqual([]);
});

test("a channel is tested, and what became of it is said", async ({ page }) => {
  test.setTimeout(90_000);
  const [a] = now.organisations;
  await signIn(page, now.proxy, userWith("admin", a.id));
  await open(page, "channels", a.id);
  await page.getByRole("button", { name: /Send a test/ }).first().click();
  await expect(page.locator("dialog")).toContainText("It took", { timeout: 70_000 });
});

test("a deletion that is held back is confirmed with its numbers and the name typed", async ({ page, request }) => {
  test.setTimeout(90_000);
  const errors = watch(page);
  const b = now.organisations[1];
  const admin = userWith("admin", b.id);
  const { url, anon_key: key } = now.supabase;
  const session = await request.post(`${url}/auth/v1/token?grant_type=password`, { headers: { apikey: key }, data: { email: admin.email, password: admin.password } });
  const { access_token: token } = await session.json();
  const headers = { apikey: key, authorization: `Bearer ${token}`, prefer: "return=minimal" };
  const rows = `${url}/rest/v1/alert_rule`;
  const group = `guard-${Date.now()}`;
  const many = Array.from({ length: 24 }, (_, at) => ({ organisation_id: b.id, name: `Guarded${at}`, expr: `up == ${at}`, rule_group: `${group}-${at % 2}` }));
  expect((await request.post(rows, { headers, data: many })).status()).toBe(201);
  await signIn(page, now.proxy, admin);
  await open(page, "rules", b.id);
  await page.getByRole("button", { name: "Sync now" }).click();
  await expect(page.getByRole("heading", { name: "The sync is done" })).toBeVisible({ timeout: 20_000 });
  expect((await request.delete(`${rows}?organisation_id=eq.${b.id}&rule_group=like.${group}*`, { headers })).ok()).toBe(true);
  await page.getByRole("button", { name: "Sync now" }).click();
  const held = page.getByRole("button", { name: "Confirm the deletion…" });
  await expect(held).toBeVisible({ timeout: 20_000 });
  await looksRight(page, "a held deletion");
  await held.click();
  await expect(page.locator("dialog")).toContainText("24 rules");
  const sure = page.getByRole("button", { name: "Delete 24 rules" });
  await expect(sure).toBeDisabled();
  await page.locator("dialog input").fill(b.id);
  await sure.click();
  await expect(held).toHaveCount(0, { timeout: 20_000 });
  await expect(page.getByRole("heading", { name: "The sync is done" })).toBeVisible();
  await expect(page.getByRole("row", { name: /Guarded/ })).toHaveCount(0);
  expect(errors).toEqual([]);
});

test("the keyboard reaches everything that is needed", async ({ page }) => {
  await useToken(page, now.proxy, now.operator_token);
  await page.keyboard.press("g");
  await page.keyboard.press("c");
  await expect(page.locator("main h1")).toHaveText("Channels");
  await open(page, "config");
  await page.keyboard.press("/");
  await page.keyboard.type("listen.idle");
  await expect(page.getByRole("row")).toHaveCount(2);
  await expect(page).toHaveURL(/filter=listen\.idle/);
  await page.locator("main").focus();
  await page.keyboard.press("?");
  await expect(page.locator("dialog")).toBeVisible();
  await page.keyboard.press("Escape");
  await expect(page.locator("dialog")).toHaveCount(0);
});
