/** The dashboard's pictures in docs/pictures. Run by scripts/screenshots. */
import { expect, signIn, test, user } from "./fixtures.ts";
import { picture } from "./pictures.ts";

interface Picture {
  name: string;
  path: string;
  scheme: "light" | "dark";
  /** What is clicked on the way. */
  link?: string;
  /** What has to be there. */
  ready: string;
  size?: { width: number; height: number };
}

const PHONE = { width: 390, height: 844 };
const PICTURES: Picture[] = [
  { name: "dashboard-overview", path: "overview?range=6h", scheme: "light", ready: '[data-panel="uplink"] canvas' },
  { name: "dashboard-overview-dark", path: "overview?range=6h", scheme: "dark", ready: '[data-panel="uplink"] canvas' },
  { name: "dashboard-rule", path: "rules", scheme: "light", link: "TooHumid", ready: ".cm-content .fault" },
  { name: "dashboard-rule-preview", path: "rules", scheme: "light", link: "ColdStoreWarm", ready: '[aria-label="Preview"] canvas' },
  { name: "dashboard-alerts", path: "alerts", scheme: "light", ready: '[data-alert="ColdStoreWarm"] .sparkline' },
  { name: "dashboard-phone", path: "overview?range=6h", scheme: "dark", ready: '[data-panel="temperature"] canvas', size: PHONE },
];

for (const { name, path, scheme, link, ready, size } of PICTURES) {
  test(name, async ({ page, stack, errors: _ }) => {
    if (size) await page.setViewportSize(size);
    await page.emulateMedia({ colorScheme: scheme, reducedMotion: "reduce" });
    await page.goto(`${stack.dashboard}/#/${path}`);
    await signIn(page, user(stack, "owner"));
    if (link) await page.getByRole("link", { name: link, exact: true }).click();
    await expect(page.locator(ready)).toBeVisible();
    await expect(page.getByRole("status", { name: "Loading" })).toHaveCount(0);
    await picture(page, name);
  });
}
