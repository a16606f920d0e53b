/** A screenshot of a page that has come to rest. */
import { mkdirSync, statSync } from "node:fs";
import { dirname, join } from "node:path";
import { fileURLToPath } from "node:url";
import { expect, type Page } from "@playwright/test";

const REPOSITORY = join(dirname(fileURLToPath(import.meta.url)), "../..");
/** In the repository for as long as it exists. */
const MOST_BYTES = 200_000;

/** Of docs/pictures, by its name. */
export async function picture(page: Page, name: string): Promise<void> {
  await page.evaluate(() => document.fonts.ready);
  const file = join(REPOSITORY, "docs/pictures", `${name}.png`);
  mkdirSync(dirname(file), { recursive: true });
  await page.screenshot({ path: file, caret: "hide" });
  expect(statSync(file).size, file).toBeLessThan(MOST_BYTES);
}

/** Of a state, to be looked at: in tests/browser/out. */
export async function sketch(page: Page, name: string, fullPage = true): Promise<void> {
  await page.screenshot({ path: join(REPOSITORY, "tests/browser/out/states", `${name}.png`), fullPage, caret: "hide" });
}
