/** Every view of the dashboard at every width, light and dark: nothing is cut off, and axe finds nothing serious. */
import { seriousFindings } from "./axe.ts";
import { loaded, open, visit } from "./dashboard-page.ts";
import { expect, test, user } from "./fixtures.ts";

const VIEWS = ["overview", "hubs", "alerts", "rules", "notifications", "hubs/greenhouse"];
const WIDTHS = [390, 1280, 1920];
const SCHEMES = ["light", "dark"] as const;

/** What reaches over the edge of the window, or has text that is wider than its box. */
function tooWide(): string[] {
  const name = (element: Element) => `${element.tagName.toLowerCase()}.${element.className.toString().replaceAll(" ", ".")}`;
  const found: string[] = [];
  const over = document.documentElement.scrollWidth - innerWidth;
  if (over > 0) found.push(`the page, by ${over} px`);
  for (const element of document.querySelectorAll("body *")) {
    // What scrolls by itself, is hidden for the eye or is drawn is meant so.
    if (element.closest(".hidden, .skip, svg, .uplot, promql-editor") || !(element instanceof HTMLElement) || !element.checkVisibility()) continue;
    const style = getComputedStyle(element);
    const inside = element.parentElement?.closest("[class]");
    const scrolls = inside && ["auto", "scroll", "hidden", "clip"].includes(getComputedStyle(inside).overflowX);
    if (!scrolls && element.getBoundingClientRect().right > innerWidth + 1) found.push(`${name(element)} is beyond the window`);
    if (style.overflowX === "visible" && style.display !== "inline" && element.scrollWidth > element.clientWidth + 1 && element.clientWidth > 0) found.push(`${name(element)}: ${element.scrollWidth} px in ${element.clientWidth}`);
  }
  return found;
}

test("every view is accessible and fits phone, desktop and a wide screen, light and dark", async ({ page, stack, errors: _ }) => {
  test.setTimeout(180_000);
  await open(page, stack, user(stack, "owner"), "rules");
  const rule = (await page.getByRole("link", { name: "ColdStoreWarm" }).getAttribute("href"))!.replace(/^#\//, "");
  for (const view of [...VIEWS, rule]) {
    await visit(page, view);
    await loaded(page);
    for (const width of WIDTHS) {
      await page.setViewportSize({ width, height: width < 500 ? 844 : 1000 });
      await expect.poll(() => page.evaluate(tooWide), { message: `${view} at ${width} px` }).toEqual([]);
      // What axe finds depends on the layout, of which there are two, and on the colours.
      if (width === 1920) continue;
      for (const scheme of SCHEMES) {
        await page.emulateMedia({ colorScheme: scheme, reducedMotion: "reduce" });
        expect(await seriousFindings(page, scheme === "light" ? "all" : "colours"), `${view}, ${width} px, ${scheme}`).toEqual([]);
      }
    }
  }
});
