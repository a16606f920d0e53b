/** The dashboard against the whole stack: its own origin, its own Content-Security-Policy, real answers. */
import { loaded, open, tamper, visit, write } from "./dashboard-page.ts";
import { expect, memberOfBoth, signIn, test, user } from "./fixtures.ts";

test("the page may connect to Supabase and the proxy and to nothing else, and has no inline scripts and styles", async ({ page, stack, errors: _ }) => {
  const policy = (await page.goto(stack.dashboard!))!.headers()["content-security-policy"]!;
  const sources = (name: string) => policy.split("; ").find((part) => part.startsWith(`${name} `))?.split(" ").slice(1);
  expect(sources("default-src")).toEqual(["'none'"]);
  expect(sources("script-src")).toEqual(["'self'"]);
  expect(sources("style-src")).toEqual(["'self'"]);
  const { url } = stack.supabase;
  expect(sources("connect-src")?.sort()).toEqual(["'self'", stack.proxy, url, url.replace("http", "ws")].sort());
});

test("a wrong password is said in words", async ({ page, stack, errors }) => {
  errors.allow(/status of 400/);
  await page.goto(stack.dashboard!);
  await signIn(page, { ...user(stack, "viewer"), password: "wrong" });
  await expect(page.getByRole("alert")).toHaveText(/invalid/i);
});

test("charts show the hubs' data, the firing alert and the silent hub, and nothing moves when it comes", async ({ page, stack, errors: _ }) => {
  await page.addInitScript(() => {
    const shifts = { sum: 0 };
    Object.assign(window, { shifts });
    new PerformanceObserver((list) => {
      for (const entry of list.getEntries() as (PerformanceEntry & { value: number; hadRecentInput: boolean })[]) {
        if (!entry.hadRecentInput) shifts.sum += entry.value;
      }
    }).observe({ type: "layout-shift", buffered: true });
  });
  await open(page, stack, user(stack, "viewer"));
  await page.reload();
  await loaded(page);
  await expect(page.getByLabel("Hubs reporting")).toContainText("1 silent");
  await expect(page.getByLabel("Firing alerts")).toContainText("firing");
  const temperature = page.locator('[data-panel="temperature"]');
  await expect(temperature.getByRole("row", { name: /barn-north/ })).toContainText(/\d °C/);
  await expect(temperature.getByRole("row", { name: /orchard-gate/ })).toContainText("no data");
  const drawn = await temperature.locator("canvas").evaluate((canvas: HTMLCanvasElement) => {
    const pixels = canvas.getContext("2d")!.getImageData(0, 0, canvas.width, canvas.height).data;
    const colours = new Set<string>();
    for (let at = 0; at < pixels.length; at += 4) if (pixels[at + 3]! > 200) colours.add(pixels.slice(at, at + 3).join());
    return colours.size;
  });
  expect(drawn, "colours on the canvas").toBeGreaterThan(10);
  expect(await page.evaluate(() => (window as unknown as { shifts: { sum: number } }).shifts.sum), "layout shifts").toBeLessThan(0.01);
});

test("another organisation shows its own hubs and none of the first, and a link keeps it", async ({ page, stack, errors: _ }) => {
  const [first, second] = stack.organisations;
  await open(page, stack, memberOfBoth(stack), `hubs?org=${first!.id}`);
  await expect(page.getByRole("link", { name: "barn-north" })).toBeVisible();
  await page.getByRole("button", { name: `Organisation: ${first!.name}` }).click();
  await page.getByRole("button", { name: second!.name }).click();
  await expect(page.getByRole("link", { name: "boiler-room" })).toBeVisible();
  await expect(page.getByRole("link", { name: "barn-north" })).toHaveCount(0);
  await page.reload();
  await expect(page.getByRole("link", { name: "boiler-room" })).toBeVisible();
  await visit(page, "hubs?org=nobody");
  await expect(page.getByText("You are not a member of nobody")).toBeVisible();
});

test("the query behind a chart can be changed, a mistake in it is said with its request ID, and the rest stays", async ({ page, stack, errors }) => {
  errors.allow(/status of 400/);
  await open(page, stack, user(stack, "viewer"));
  const panel = page.locator('[data-panel="temperature"]');
  await panel.getByRole("button", { name: "Query", exact: true }).click();
  await write(page, "rate(hub_temperature_celsius)");
  await panel.getByRole("button", { name: "Run" }).click();
  await expect(panel.getByRole("alert")).toContainText("range vector");
  await expect(panel.getByRole("button", { name: "copy request ID" })).toBeVisible();
  await expect(page.locator('[data-panel="humidity"]').getByRole("row", { name: /barn-north/ })).toContainText("%");
  await write(page, 'hub_temperature_celsius{hub="greenhouse"} * 2');
  await panel.getByRole("button", { name: "Run" }).click();
  await expect(panel.getByRole("row", { name: /greenhouse/ })).toBeVisible();
  expect(new URL(page.url()).hash).toContain("q.temperature=");
  await page.goBack();
  await expect(panel.getByRole("alert")).toContainText("range vector");
});

test("PromQL is completed with what the organisation has", async ({ page, stack, errors: _ }) => {
  await open(page, stack, user(stack, "editor"), "rules/new");
  await write(page, "hub_hum");
  await expect(page.locator(".cm-tooltip-autocomplete")).toContainText("hub_humidity_percent");
});

for (const [where, path, text] of [["a rule", "rules/new", "hub_battery_volts < 3"], ["a chart", "overview", "hub_battery_volts + 0"]] as const) {
  test(`what is typed into the query of ${where}, key by key, is what is there`, async ({ page, stack, errors: _ }) => {
    test.slow();
    await open(page, stack, user(stack, "editor"), path);
    if (path === "overview") await page.locator('[data-panel="battery"]').getByRole("button", { name: "Query" }).click();
    const editor = page.locator(".cm-content");
    await editor.click();
    // About as fast as the page is drawn, and slower: each time another render is under way.
    for (const delay of [30, 80]) {
      await editor.press("Control+a");
      await page.keyboard.type(text, { delay });
      await expect(editor).toHaveText(text);
    }
  });
}

test("a token that expires, or is refused, is renewed in the middle of work", async ({ page, stack, errors }) => {
  await open(page, stack, user(stack, "viewer"), "hubs");
  await expect(page.getByRole("link", { name: "barn-north" })).toBeVisible();
  await tamper(page, "expire");
  const renewed = page.waitForRequest((request) => request.url().includes("grant_type=refresh_token"));
  await page.getByRole("button", { name: "Refresh now" }).click();
  await renewed;
  errors.allow(/status of 401/);
  // The renewed token is stored a moment after its answer, and takes the place of one forged before that.
  await expect(async () => {
    const refused = page.waitForResponse((answer) => answer.status() === 401, { timeout: 3000 });
    await tamper(page, "forge");
    await page.getByRole("button", { name: "Refresh now" }).click();
    await refused;
  }).toPass();
  await visit(page, "rules");
  await expect(page.getByRole("link", { name: "TooHumid" })).toBeVisible();
  await expect(page.getByRole("alert")).toHaveCount(0);
});

test("a session that ends leaves what was written, and signing in again goes on", async ({ page, stack, errors }) => {
  errors.allow(/status of 40[01]/);
  const editor = user(stack, "editor");
  await open(page, stack, editor, "rules/new");
  await page.getByLabel("Name", { exact: true }).fill("HalfWritten");
  const dialog = page.getByRole("dialog", { name: "Your session has ended" });
  await tamper(page, "end");
  // The page may find out by itself, before or meanwhile; the dialog then covers the button.
  if (!(await dialog.isVisible())) await page.getByRole("button", { name: "Refresh now", includeHidden: true }).dispatchEvent("click");
  await expect(dialog).toBeVisible();
  await dialog.getByLabel("Password").fill(editor.password);
  await dialog.getByRole("button", { name: "Sign in" }).click();
  await expect(dialog).toHaveCount(0);
  await expect(page.getByLabel("Name", { exact: true })).toHaveValue("HalfWritten");
});

test("a broken rule shows its fault under the characters, and is live once it is corrected", async ({ page, stack, errors: _ }) => {
  test.setTimeout(90_000);
  await open(page, stack, user(stack, "editor"), "rules");
  const row = page.locator('[data-rule="TooHumid"]');
  await expect(row.locator("mark")).toHaveText("5");
  await expect(row).toContainText("Unclosed left parenthesis.");
  await row.getByRole("link").click();
  await expect(page.locator(".cm-content .fault")).toHaveText("5");
  await write(page, "avg by (hub) (hub_humidity_percent) > 99");
  await page.getByRole("button", { name: "Save" }).click();
  await expect(page.locator('[data-state="live"]')).toBeVisible({ timeout: 60_000 });
  // Broken again, for whoever looks next.
  await write(page, "avg by (hub) (hub_humidity_percent > 95");
  await page.getByRole("button", { name: "Save" }).click();
  await expect(page.locator(".cm-content .fault")).toHaveText("5", { timeout: 30_000 });
});

test("a rule is created, goes live, fires, notifies, and is silenced", async ({ page, request, stack, errors: _ }) => {
  test.setTimeout(150_000);
  await open(page, stack, user(stack, "admin"), "rules/new");
  await page.getByLabel("Name", { exact: true }).fill("BarnProbe");
  await write(page, 'hub_temperature_celsius{hub="barn-north"} > -40');
  await page.getByLabel("For", { exact: true }).fill("0s");
  await page.getByLabel("Every", { exact: true }).fill("5s");
  await page.getByLabel("Labels: severity").fill("critical");
  const preview = page.getByLabel("Preview");
  await expect(preview).toContainText("It would have fired once.");
  await expect(page.getByLabel("Notifies")).toContainText("On call");
  await page.getByRole("button", { name: "Create rule" }).click();
  await expect(page.locator('[data-state="live"]')).toBeVisible({ timeout: 90_000 });

  await page.getByRole("link", { name: "Alerts" }).click();
  const alert = page.locator('[data-alert="BarnProbe"]');
  await expect(alert).toContainText("firing", { timeout: 60_000 });
  await expect(alert).toContainText(/recorded \d\d:\d\d/);
  await expect(page.locator('[data-group*="BarnProbe"]')).toContainText("goes to On call", { timeout: 30_000 });
  await expect(alert).toContainText("at the Alertmanager");
  await expect.poll(async () => (await request.get(stack.webhook_receiver)).text(), { timeout: 30_000 }).toContain("BarnProbe");

  await alert.getByRole("button", { name: "Silence" }).click();
  const dialog = page.getByRole("dialog", { name: "Silence alerts" });
  await expect(dialog).toContainText("covers 1 alert that fires now");
  await dialog.getByLabel("Reason").fill("a test");
  await dialog.getByRole("button", { name: "1 hour" }).click();
  await dialog.getByRole("button", { name: "Silence", exact: true }).click();
  await expect(alert).toContainText("held back by a silence");
  const silences = page.getByLabel("Silences");
  await expect(silences).toContainText(user(stack, "admin").email);
  await silences.getByRole("button", { name: "End now" }).click();
  await expect(alert).toContainText("firing");

  await alert.getByRole("link", { name: "BarnProbe" }).click();
  await page.getByRole("button", { name: "Delete" }).click();
  await page.getByRole("button", { name: "Delete" }).click();
  await expect(page.getByRole("link", { name: "TooHumid" })).toBeVisible();
  await expect(page.getByRole("link", { name: "BarnProbe" })).toHaveCount(0);
});

test("an admin sends a test to a channel, an editor and a viewer see who may", async ({ page, stack, errors: _ }) => {
  test.setTimeout(90_000);
  await open(page, stack, user(stack, "admin"), "notifications");
  const channel = page.locator('[data-channel="On call"]');
  await channel.getByRole("button", { name: "Send a test" }).click();
  await expect(channel.getByText("delivered")).toBeVisible({ timeout: 70_000 });
  await page.getByRole("button", { name: /^Account of/ }).click();
  await page.getByRole("button", { name: "Sign out" }).click();
  await signIn(page, user(stack, "viewer"));
  await expect(channel).toContainText("Owners and admins can send a test.");
  await visit(page, "rules");
  await expect(page.getByRole("link", { name: "TooHumid" })).toBeVisible();
  await expect(page.getByRole("link", { name: "New rule" })).toHaveCount(0);
});

test("the keyboard finds hubs and shows its help", async ({ page, stack, errors: _ }) => {
  await open(page, stack, user(stack, "viewer"));
  await page.keyboard.press("/");
  await page.getByRole("combobox").pressSequentially("green");
  await expect(page.getByRole("option")).toHaveText("greenhouse hub");
  await page.keyboard.press("Enter");
  await expect(page.getByRole("heading", { level: 1, name: "greenhouse" })).toBeVisible();
  await page.keyboard.press("?");
  await expect(page.getByRole("dialog", { name: "Keyboard and mouse" })).toBeVisible();
  await page.keyboard.press("Escape");
  await expect(page.getByRole("dialog")).toHaveCount(0);
});

test("the fields of a range stay in their menu, on a phone too", async ({ page, stack, errors: _ }) => {
  await open(page, stack, user(stack, "viewer"));
  await page.getByRole("button", { name: /^Time range: / }).click();
  for (const width of [1280, 390]) {
    await page.setViewportSize({ width, height: 800 });
    const menu = (await page.locator(".range-menu .menu-body").boundingBox())!;
    for (const name of ["From", "To"]) {
      const field = (await page.getByLabel(name, { exact: true }).boundingBox())!;
      expect(field.x, name).toBeGreaterThanOrEqual(menu.x);
      expect(field.x + field.width, name).toBeLessThanOrEqual(menu.x + menu.width);
    }
    expect(menu.x).toBeGreaterThanOrEqual(0);
    expect(menu.x + menu.width).toBeLessThanOrEqual(width);
  }
});

test("without a network a page says so, a rule is not lost, and all goes on when the network is back", async ({ page, stack, errors }) => {
  errors.allow(/ERR_INTERNET_DISCONNECTED|Failed to fetch/);
  await open(page, stack, user(stack, "editor"), "rules/new");
  await page.context().setOffline(true);
  await page.getByLabel("Name", { exact: true }).fill("Offline");
  await page.getByRole("button", { name: "Create rule" }).click();
  await expect(page.getByRole("form", { name: "Rule" }).getByRole("alert")).toContainText("This device is offline.");
  let requests = 0;
  page.on("request", () => requests++);
  await visit(page, "rules");
  await expect(page.getByRole("alert")).toContainText("This device is offline.");
  await page.waitForTimeout(5000);
  expect(requests, "requests without a network").toBeLessThan(5);
  await page.context().setOffline(false);
  await expect(page.getByRole("alert")).toHaveCount(0);
  await expect(page.getByRole("table")).toBeVisible();
});
