/** The dashboard's pictures in docs/pictures. Run by scripts/screenshots. */
import { mkdirSync, statSync } from "node:fs";
import { dirname, join } from "node:path";
import { fileURLToPath } from "node:url";
import { expect, signIn, test, user } from "./fixtures.ts";

const FOLDER = join(dirname(fileURLToPath(import.meta.url)), "../../docs/pictures");
const MOST_BYTES = 200_000;

const PICTURES: { name: string; path: string; scheme: "light" | "dark"; link?: string; ready: string }[] = [
  { name: "dashboard-overview", path: "overview?range=6h", scheme: "light", ready: '[data-panel="uplink"] canvas' },
  { name: "dashboard-overview-dark", path: "overview?range=6h", scheme: "dark", ready: '[data-panel="uplink"] canvas' },
  { name: "dashboard-rule", path: "rules", scheme: "light", link: "TooHumid", ready: ".cm-content .fault" },
  { name: "dashboard-rule-preview", path: "rules", scheme: "light", link: "ColdStoreWarm", ready: '[aria-label="Preview"] canvas' },
  { name: "dashboard-alerts", path: "alerts", scheme: "light", ready: '[data-alert="ColdStoreWarm"] .sparkline' },
];

for (const { name, path, scheme, link, ready } of PICTURES) {
  test(name, async ({ page, stack, errors: _ }) => {
    mkdirSync(FOLDER, { recursive: true });
    await page.emulateMedia({ colorScheme: scheme, reducedMotion: "reduce" });
    await page.goto(`${stack.dashboard}/#/${path}`);
    await signIn(page, user(stack, "owner"));
    if (link) await page.getByRole("link", { name: link, exact: true }).click();
    await expect(page.locator(ready)).toBeVisible();
    await expect(page.getByRole("status", { name: "Loading" })).toHaveCount(0);
    await page.evaluate(() => document.fonts.ready);
    const file = join(FOLDER, `${name}.png`);
    await page.screenshot({ path: file, caret: "hide" });
    expect(statSync(file).size, file).toBeLessThan(MOST_BYTES);
  });
}
