/** The dashboard in a browser: what every test of it does. */
import { expect, signIn } from "./fixtures.ts";
import type { Page } from "@playwright/test";
import type { Stack, User } from "./stack.ts";

export async function open(page: Page, stack: Stack, as: User, path = "overview"): Promise<void> {
  expect(stack.dashboard, "the dashboard is built").not.toBeNull();
  await page.goto(`${stack.dashboard}/#/${path}`);
  await signIn(page, as);
  await expect(page.getByRole("navigation", { name: "Views" })).toBeVisible();
  await expect(page.getByRole("main").getByRole("heading", { level: 1 })).toBeVisible();
}

export async function visit(page: Page, path: string): Promise<void> {
  await page.evaluate((path) => (location.hash = `#/${path}`), path);
}

/** No skeleton is left. */
export async function loaded(page: Page): Promise<void> {
  await expect(page.getByRole("status", { name: "Loading" })).toHaveCount(0);
}

/** Types into the PromQL editor once it has taken the place of the plain field. */
export async function write(page: Page, text: string): Promise<void> {
  const editor = page.locator(".cm-content");
  await editor.click();
  await editor.press("Control+a");
  await page.keyboard.insertText(text);
}

/** Changes what supabase-js has stored, as time or an administrator would. */
export async function tamper(page: Page, change: "expire" | "forge" | "end"): Promise<void> {
  await page.evaluate((change) => {
    const key = Object.keys(localStorage).find((name) => name.endsWith("-auth-token"))!;
    const session = JSON.parse(localStorage.getItem(key)!) as Record<string, unknown>;
    if (change !== "forge") session.expires_at = Math.floor(Date.now() / 1000) - 10;
    if (change === "forge") session.access_token = `${String(session.access_token).slice(0, -8)}AAAAAAAA`;
    if (change === "end") session.refresh_token = "ended";
    localStorage.setItem(key, JSON.stringify(session));
  }, change);
}
