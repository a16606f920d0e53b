/**
 * Every view of the dashboard in every state, at phone and desktop width, light and dark, in
 * tests/browser/out/states: for whoever changes how it looks. Run by scripts/screenshots.
 */
import { open, visit } from "./dashboard-page.ts";
import { expect, test, user } from "./fixtures.ts";
import { sketch } from "./pictures.ts";
import type { Page, Route } from "@playwright/test";
import type { Stack } from "./stack.ts";

const VIEWS = ["overview", "hubs", "hubs/greenhouse", "alerts", "rules", "rules/new", "notifications"];
const LOOKS = [
  { width: 390, scheme: "dark" },
  { width: 1280, scheme: "light" },
  { width: 1280, scheme: "dark" },
  { width: 1920, scheme: "light" },
] as const;

const HEADERS = { "Access-Control-Allow-Origin": "*", "Access-Control-Expose-Headers": "X-Request-Id", "X-Request-Id": "0a1b2c3d4e5f" };
const nothing = (route: Route) => route.fulfill({ headers: HEADERS, json: answerOf(route.request().url(), []) });
const broken = (route: Route) => route.fulfill({ status: 500, headers: HEADERS, json: { error: "Mimir does not answer; its instances are being tried again", message: "the database does not answer" } });

function answerOf(url: string, result: unknown[]): unknown {
  if (url.includes("/rest/")) return result;
  if (url.includes("/alertmanager/")) return result;
  return { status: "success", data: { resultType: "matrix", result, alerts: [] } };
}

/** What becomes of requests for data. Who is asked who one is always answers. */
const STATES: Record<string, ((route: Route) => Promise<void>) | null> = {
  full: null,
  loading: () => new Promise(() => {}),
  empty: nothing,
  error: broken,
  partial: (route) => (/humidity|alert_event|alert_rule_status/.test(route.request().postData() ?? route.request().url()) ? broken(route) : route.fallback()),
};

async function answer(page: Page, stack: Stack, state: (route: Route) => Promise<void>): Promise<void> {
  await page.route((url) => url.origin === stack.proxy && !url.pathname.startsWith("/admin/"), state);
  await page.route((url) => url.origin === stack.supabase.url && url.pathname.startsWith("/rest/") && !url.pathname.endsWith("/organisation"), state);
}

for (const [name, state] of Object.entries(STATES)) {
  test(name, async ({ page, stack }) => {
    test.setTimeout(180_000);
    // The last of them: each of the others is opened anew.
    await open(page, stack, user(stack, "owner"), "notifications");
    if (state) await answer(page, stack, state);
    for (const { width, scheme } of LOOKS) {
      if (state && width === 1920) continue;
      await page.setViewportSize({ width, height: 844 });
      await page.emulateMedia({ colorScheme: scheme, reducedMotion: "reduce" });
      for (const view of VIEWS) {
        await visit(page, view);
        const loading = page.getByRole("status", { name: "Loading" });
        if (name !== "loading") await expect(loading).toHaveCount(0);
        await sketch(page, `${name}-${view.replace("/", "-")}-${width}-${scheme}`);
      }
    }
  });
}

test("dialogs", async ({ page, stack }) => {
  await open(page, stack, user(stack, "owner"), "notifications");
  for (const { width, scheme } of LOOKS) {
    await page.setViewportSize({ width, height: 844 });
    await page.emulateMedia({ colorScheme: scheme, reducedMotion: "reduce" });
    for (const name of ["New channel", "Edit On call", "Delete On call", "New route"]) {
      await page.getByRole("button", { name }).click();
      await sketch(page, `dialog-${name.replaceAll(" ", "-")}-${width}-${scheme}`, false);
      await page.keyboard.press("Escape");
    }
    await visit(page, "alerts");
    await page.locator('[data-alert="ColdStoreWarm"]').getByRole("button", { name: "Silence" }).click();
    await sketch(page, `dialog-silence-${width}-${scheme}`, false);
    await page.keyboard.press("Escape");
    await visit(page, "notifications");
  }
});
