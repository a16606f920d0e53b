// A device key is shown once: nothing but its owner takes it from the page.

import type { Page } from "@playwright/test";

import { open, signIn, watch } from "./console-page.ts";
import { expect, test, user } from "./fixtures.ts";

const LOST = "The key has not been copied";

test.beforeEach(async ({ page, stack, context }) => {
  await context.grantPermissions(["clipboard-write"]);
  await signIn(page, stack.proxy, user(stack, "admin"));
  await open(page, "rules", stack.organisations[0]!.id);
  await open(page, "devices", stack.organisations[0]!.id);
});

async function begin(page: Page) {
  await page.getByRole("button", { name: "Create a key" }).first().click();
  await page.getByLabel("Name of the device").fill(`shown once ${Date.now()}`);
  await page.getByRole("button", { name: "Create", exact: true }).click();
}

test("a key that was not copied stays, whatever is pressed, until that is confirmed", async ({ page }) => {
  const errors = watch(page);
  await begin(page);
  const key = page.locator("[data-key]");
  await expect(key).toBeVisible();
  for (let times = 0; times < 4; times++) await page.keyboard.press("Escape");
  await expect(page.getByRole("alert")).toContainText(LOST);
  await expect(key).toBeVisible();
  await page.getByRole("button", { name: "Keep it open" }).click();
  await expect(page.getByRole("alert")).toHaveCount(0);

  const address = page.url();
  for (let times = 0; times < 2; times++) {
    await page.goBack();
    await expect(page.getByRole("alert")).toContainText(LOST);
    await expect(key).toBeVisible();
    expect(page.url()).toBe(address);
  }

  // What a browser does where it lets no page have a say: a third Esc, or the way back of a phone.
  await page.getByRole("button", { name: "Keep it open" }).click();
  await page.locator("dialog").evaluate((box: HTMLDialogElement) => box.close());
  await expect(page.getByRole("alert")).toContainText(LOST);
  await expect(key).toBeVisible();

  const asks = page.waitForEvent("dialog");
  await page.close({ runBeforeUnload: true });
  const asked = await asks;
  expect(asked.type()).toBe("beforeunload");
  await asked.dismiss();

  await page.getByRole("button", { name: "Close it without the key" }).click();
  await expect(page.locator("dialog")).toHaveCount(0);
  await page.goBack();
  await expect(page.locator("main h1")).toHaveText("Rules");
  expect(errors).toEqual([]);
});

test("a key that was copied lets go", async ({ page }) => {
  for (const way of ["button", "selection"]) {
    await begin(page);
    const key = page.locator("[data-key]");
    await expect(key).toBeVisible();
    await page.keyboard.press("Escape");
    await expect(page.getByRole("alert")).toContainText(LOST);
    if (way === "button") await page.getByRole("button", { name: "Copy the key" }).click();
    else {
      await key.selectText();
      await page.keyboard.press("Control+c");
    }
    await expect(page.getByRole("alert")).toHaveCount(0);
    await page.keyboard.press("Escape");
    await expect(page.locator("dialog")).toHaveCount(0);
  }
  await begin(page);
  await page.getByRole("button", { name: "Copy the key" }).click();
  await expect(page.getByRole("status").filter({ hasText: "Copied" })).toBeVisible();
  await page.goBack();
  await expect(page.locator("dialog")).toHaveCount(0);
  await expect(page.locator("main h1")).toHaveText("Rules");
});

test("a key that is just being created is waited for", async ({ page }) => {
  let release!: () => void;
  const released = new Promise<void>((go) => (release = go));
  await page.route(/\/device-keys$/, async (route) => {
    if (route.request().method() === "POST") await released;
    await route.continue();
  });
  await begin(page);
  await page.keyboard.press("Escape");
  await expect(page.getByRole("alert")).toContainText("The key is being created");
  await page.goBack();
  release();
  await expect(page.locator("[data-key]")).toBeVisible();
  await expect(page.getByRole("alert")).toHaveCount(0);
});

const end = (page: Page) => page.route(/\/admin\/|grant_type=refresh_token/, (route) => route.fulfill({ status: 401, json: { error: "the token was revoked" } }));

test("a sign-in that ends closes a dialog", async ({ page }) => {
  const revoke = page.getByRole("button", { name: /^Revoke the key of/ }).first();
  const name = ((await revoke.getAttribute("aria-label")) ?? "").replace("Revoke the key of ", "");
  await revoke.click();
  await page.locator("dialog input").fill(name);
  await end(page);
  await page.getByRole("button", { name: "Revoke the key", exact: true }).click();
  await expect(page.getByText("You were signed out: the token was revoked")).toBeVisible();
  await expect(page.locator("dialog")).toHaveCount(0);
});

test("a sign-in that ends does not take a key", async ({ page }) => {
  await page.getByRole("button", { name: "Rotate" }).first().click();
  await page.getByRole("button", { name: "Create the new key" }).click();
  await expect(page.locator("[data-key]")).toBeVisible();
  await end(page);
  await page.getByRole("button", { name: "Revoke the old key now" }).click();
  await expect(page.getByText("You were signed out: the token was revoked")).toBeAttached();
  await expect(page.locator("[data-key]")).toBeVisible();
  await page.getByRole("button", { name: "I have the key" }).click();
  await expect(page.locator("dialog")).toHaveCount(0);
  await expect(page.getByRole("button", { name: "Sign in" })).toBeVisible();
});
