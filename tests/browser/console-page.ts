// The console in a browser: sign-in, and what every test of it asserts.

import { expect, type Page } from "@playwright/test";

import { type Rules, seriousFindings } from "./axe.ts";

/** What is wrong on a page that nobody looks at: errors in its console, and exceptions. */
export function watch(page: Page): string[] {
  const errors: string[] = [];
  page.on("console", (message) => {
    if (message.type() === "error") errors.push(`${message.text()} (${message.location().url})`);
  });
  page.on("pageerror", (error) => errors.push(error.message));
  return errors;
}

/** Signs in with a token, which is kept for the tab so that views can be opened. `isThere`: on the page as it is. */
export async function useToken(page: Page, proxy: string, token: string, { isThere = false } = {}) {
  if (!isThere) await page.goto(`${proxy}/admin/console`);
  await page.getByLabel("Token").fill(token);
  await page.getByLabel("Keep it until this tab is closed").check();
  await page.getByRole("button", { name: "Use the token" }).click();
  await expect(page.getByRole("navigation", { name: "Views" })).toBeVisible();
}

/** Signs in with Supabase. */
export async function signIn(page: Page, proxy: string, user: { email: string; password: string }) {
  await page.goto(`${proxy}/admin/console`);
  await page.getByLabel("Email").fill(user.email);
  await page.getByLabel("Password").fill(user.password);
  await page.getByRole("button", { name: "Sign in" }).click();
  await expect(page.getByRole("navigation", { name: "Views" })).toBeVisible();
}

/** Opens a view, and waits until it has what it shows. */
export async function open(page: Page, view: string, organisation?: string) {
  const query = organisation ? `?organisation=${encodeURIComponent(organisation)}` : "";
  await page.evaluate((hash) => { location.hash = hash; }, `#/${view}${query}`);
  await expect(page.locator("main h1").first()).toBeVisible();
  await expect(page.locator(".bone")).toHaveCount(0);
}

/** Nothing is wider than the window. */
export async function fits(page: Page, what: string) {
  const over = await page.evaluate(() => document.documentElement.scrollWidth - innerWidth);
  expect(over, `${what} is wider than the window`).toBeLessThanOrEqual(0);
}

/** Nothing is wider than the window, and axe finds nothing serious. */
export async function looksRight(page: Page, what: string, rules: Rules = "all") {
  await fits(page, what);
  expect(await seriousFindings(page, rules), what).toEqual([]);
}
