/** What axe finds on a page. */
import axe from "axe-core";
import type { Page } from "@playwright/test";

/** `all`, or only what depends on the colours: for another scheme of a page that was looked at. */
export type Rules = "all" | "colours";

/**
 * What axe calls serious or critical. It is put into the document once, and tells only what is wrong: what it
 * finds right is most of its answer, and of its time.
 */
export async function seriousFindings(page: Page, rules: Rules = "all"): Promise<string[]> {
  if (!(await page.evaluate(() => "axe" in window))) await page.evaluate(axe.source);
  const runOnly = rules === "colours" ? { runOnly: ["color-contrast"] } : {};
  const violations = await page.evaluate(
    async (options) => (await (window as unknown as { axe: typeof axe }).axe.run(document, options)).violations,
    { resultTypes: ["violations"], ...runOnly } as axe.RunOptions,
  );
  return violations
    .filter(({ impact }) => impact === "serious" || impact === "critical")
    .map(({ id, help, nodes }) => `${id}: ${help}: ${nodes.map(({ html }) => html).join("\n")}`);
}
