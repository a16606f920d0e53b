/** The console's pictures in docs/pictures. Run by scripts/screenshots. */
import { open, useToken } from "./console-page.ts";
import { expect, test } from "./fixtures.ts";
import { picture } from "./pictures.ts";

for (const { name, view, scheme } of [
  { name: "console-overview", view: "overview", scheme: "light" as const },
  { name: "console-rules", view: "rules", scheme: "light" as const },
]) {
  test(name, async ({ page, stack, errors: _ }) => {
    await page.emulateMedia({ colorScheme: scheme, reducedMotion: "reduce" });
    await useToken(page, stack.proxy, stack.operator_token);
    await open(page, view, view === "overview" ? undefined : stack.organisations[0]!.id);
    await expect(page.locator("main")).not.toBeEmpty();
    await picture(page, name);
  });
}
