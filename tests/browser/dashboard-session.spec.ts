/** Signing out of the dashboard, and what comes late. */
import type { Page } from "@playwright/test";
import { expect, memberOfBoth, signIn, test, user } from "./fixtures.ts";
import type { Stack, User } from "./stack.ts";

async function open(page: Page, stack: Stack, as: User, path: string): Promise<void> {
  await page.goto(`${stack.dashboard}/#/${path}`);
  await signIn(page, as);
  await expect(page.getByRole("main").getByRole("heading", { level: 1 })).toBeVisible();
}

async function signOut(page: Page, as: User): Promise<void> {
  await page.getByRole("button", { name: `Account of ${as.email}` }).click();
  await page.getByRole("button", { name: "Sign out" }).click();
}

const signInPage = (page: Page) => page.getByRole("heading", { name: "Sign in" });

test("a sign-out while Supabase cannot be reached is one in this browser, and says so", async ({ page, stack, errors }) => {
  errors.allow(/ERR_FAILED|Failed to fetch/);
  const viewer = user(stack, "viewer");
  await open(page, stack, viewer, "alerts");
  await page.route(/\/auth\/v1\/logout/, (route) => route.abort());
  await signOut(page, viewer);
  await expect(signInPage(page)).toBeVisible();
  await expect(page.getByRole("alert")).toContainText("Supabase could not be told");
  await page.reload();
  await expect(signInPage(page)).toBeVisible();
});

test("a sign-out in one tab takes everything from the other", async ({ page, context, stack, errors: _ }) => {
  const viewer = user(stack, "viewer");
  await open(page, stack, viewer, "alerts");
  const other = await context.newPage();
  await other.goto(`${stack.dashboard}/#/hubs`);
  await expect(other.getByRole("link", { name: "barn-north" })).toBeVisible();
  await signOut(page, viewer);
  await expect(signInPage(other)).toBeVisible();
  await expect(other.getByRole("dialog")).toHaveCount(0);
  expect(await other.content()).not.toContain("barn-north");
  expect(await other.content()).not.toContain(viewer.email);
});

test("a rule that is saved late does not take its author back from another organisation", async ({ page, stack, errors: _ }) => {
  const [first, second] = stack.organisations;
  await open(page, stack, memberOfBoth(stack), `rules/new?org=${first!.id}`);
  await page.getByLabel("Name", { exact: true }).fill("SavedLate");
  let release!: () => void;
  const released = new Promise<void>((go) => (release = go));
  await page.route(/\/rest\/v1\/alert_rule\?/, async (route) => {
    if (route.request().method() !== "POST") return route.fallback();
    await released;
    const now = new Date().toISOString();
    await route.fulfill({ status: 201, json: [{ id: "11111111-1111-4111-8111-111111111111", organisation_id: first!.id, name: "SavedLate", expr: "up", updated_at: now }] });
  });
  const asked = page.waitForRequest((request) => request.method() === "POST" && request.url().includes("/rest/v1/alert_rule"));
  await page.getByRole("button", { name: "Create rule" }).click();
  const saved = (await asked).response();
  await page.getByRole("button", { name: `Organisation: ${first!.name}` }).click();
  await page.getByRole("button", { name: second!.name }).click();
  await expect(page.getByRole("heading", { level: 1, name: "Rules" })).toBeVisible();
  release();
  await saved;
  await page.waitForTimeout(300);
  expect(new URL(page.url()).hash).toBe(`#/rules?org=${second!.id}`);
});
