/** Channels and routes on the dashboard: made, changed, put in order and deleted by those who may. */
import { open, visit } from "./dashboard-page.ts";
import { expect, signedIn, test, user } from "./fixtures.ts";

const CHANNEL = "Spec's channel";

/** Also what a test that has failed has left. */
test.afterEach(async ({ stack }) => {
  const editor = await signedIn(stack, user(stack, "editor"));
  await editor.from("notification_channel").delete().neq("name", "On call").eq("organisation_id", stack.organisations[0]!.id);
  const { data } = await editor.from("notification_route").select("id,matchers");
  for (const { id, matchers } of data ?? []) {
    if (String(matchers).includes("spec=")) await editor.from("notification_route").delete().eq("id", id as string);
  }
});

test("a channel is added, its fault is said in words, it is corrected, renamed without its secret, and deleted", async ({ page, stack, errors: _ }) => {
  test.setTimeout(90_000);
  const editor = await signedIn(stack, user(stack, "editor"));
  await open(page, stack, user(stack, "editor"), "notifications");
  const channel = page.locator(`[data-channel="${CHANNEL}"]`);
  const dialog = page.getByRole("dialog");

  await page.getByRole("button", { name: "New channel" }).click();
  await dialog.getByLabel("Name").fill(CHANNEL);
  await dialog.getByLabel("Address").fill("ftp://example.com/hook");
  await dialog.getByRole("button", { name: "Add channel" }).click();
  await expect(dialog).toHaveCount(0);
  await expect(channel).toContainText("invalid");
  await expect(channel.locator(".reason")).toContainText(/https?:\/\//);

  await channel.getByRole("button", { name: `Edit ${CHANNEL}` }).click();
  await expect(dialog.getByLabel("Kind")).toBeDisabled();
  // A secret is not shown again, and left empty it stays.
  await expect(dialog.getByLabel("Address")).toHaveValue("");
  await dialog.getByLabel("Address").fill(`${stack.webhook_receiver}/spec`);
  await dialog.getByRole("button", { name: "Save" }).click();
  await expect(channel).toContainText("live");

  await channel.getByRole("button", { name: `Edit ${CHANNEL}` }).click();
  await dialog.getByLabel("Name").fill("Renamed");
  await dialog.getByLabel("Gets what no route takes").check();
  await dialog.getByRole("button", { name: "Save" }).click();
  const renamed = page.locator('[data-channel="Renamed"]');
  await expect(renamed).toContainText("gets what no route takes");
  await expect(renamed).toContainText("live");
  const { data } = await editor.from("notification_channel").select("secrets,is_default").eq("name", "Renamed");
  expect(data).toEqual([{ secrets: { url: "<secret>" }, is_default: true }]);

  await renamed.getByRole("button", { name: "Delete Renamed" }).click();
  await expect(dialog).toContainText("Every rule that notifies somebody now still does.");
  await dialog.getByRole("button", { name: "Keep" }).click();
  await expect(renamed).toBeVisible();
  await renamed.getByRole("button", { name: "Delete Renamed" }).click();
  await dialog.getByRole("button", { name: "Delete the channel" }).click();
  await expect(renamed).toHaveCount(0);
});

test("a route is added, changed, tried earlier and deleted, and the page says which rules it takes", async ({ page, stack, errors: _ }) => {
  test.setTimeout(90_000);
  await open(page, stack, user(stack, "editor"), "notifications");
  const dialog = page.getByRole("dialog");
  const routes = page.getByLabel("Routes", { exact: true });
  const add = async (matchers: string) => {
    await page.getByRole("button", { name: "New route" }).click();
    await dialog.getByLabel("Alerts with all of these labels").fill(matchers);
  };
  const called = () => routes.locator("[data-route]").evaluateAll((all) => all.map((one) => one.getAttribute("data-route")));
  // The demo has one; before the list is there, it is empty.
  await expect(routes.locator("[data-route]").first()).toBeVisible();
  const before = await called();

  await add("severity critical");
  await expect(dialog.getByText("This is no matcher")).toBeVisible();
  await expect(dialog.getByRole("button", { name: "Add route" })).toBeDisabled();
  // An earlier route takes all that are critical.
  await dialog.getByLabel("Alerts with all of these labels").fill('spec="1"\nalertname="ColdStoreWarm"');
  await expect(dialog).toContainText("Takes alerts of none of today's rules.");
  await dialog.getByLabel("Alerts with all of these labels").fill('spec="1"\nalertname="HubSilent"');
  await expect(dialog).toContainText("Takes alerts of HubSilent (depending on its series).");
  await dialog.getByLabel("Again every").fill("often");
  await expect(dialog.getByText("is not a duration")).toBeVisible();
  await dialog.getByLabel("Again every").fill("2h");
  await dialog.getByRole("button", { name: "Add route" }).click();
  const route = routes.locator(`[data-route='spec="1" alertname="HubSilent"']`);
  await expect(route).toContainText("again every 2h");
  await expect(route).toContainText("live");

  await add('spec="2"');
  // Too short for the proxy, which says so.
  await dialog.getByLabel("Changes every").fill("10ms");
  await dialog.getByRole("button", { name: "Add route" }).click();
  const second = routes.locator(`[data-route='spec="2"']`);
  await expect(second).toContainText("invalid");
  await expect(second.locator(".reason")).toContainText("Changes every: is 10ms;");
  await second.getByRole("button", { name: /^Edit/ }).click();
  await dialog.getByLabel("Changes every").fill("");
  await dialog.getByLabel("Later routes are tried, too").check();
  await dialog.getByRole("button", { name: "Save" }).click();
  await expect(second).toContainText("then on to the next");
  await expect(second).toContainText("live");

  await second.getByRole("button", { name: /^Try earlier/ }).click();
  await expect.poll(called).toEqual([...before, 'spec="2"', 'spec="1" alertname="HubSilent"']);
  await page.reload();
  await expect(second).toBeVisible({ timeout: 30_000 });
  await expect.poll(called).toEqual([...before, 'spec="2"', 'spec="1" alertname="HubSilent"']);

  for (const one of [route, second]) {
    await one.getByRole("button", { name: /^Delete/ }).click();
    await dialog.getByRole("button", { name: "Delete the route" }).click();
    await expect(one).toHaveCount(0);
  }
});

test("what goes with a channel is said before, and what is gone meanwhile is not saved", async ({ page, stack, errors: _ }) => {
  const editor = await signedIn(stack, user(stack, "editor"));
  await open(page, stack, user(stack, "owner"), "notifications");
  const dialog = page.getByRole("dialog");
  await page.getByRole("button", { name: "Delete On call" }).click();
  await expect(dialog).toContainText(/Alerts of .*ColdStoreWarm.* will notify nobody\./);
  await dialog.getByRole("button", { name: "Keep" }).click();

  const secrets = { url: `${stack.webhook_receiver}/gone` };
  const made = await editor.from("notification_channel").insert({ organisation_id: stack.organisations[0]!.id, name: CHANNEL, kind: "webhook", secrets }).select("id").single();
  await page.getByRole("button", { name: `Edit ${CHANNEL}` }).click();
  await editor.from("notification_channel").delete().eq("id", made.data?.id as string);
  await dialog.getByRole("button", { name: "Save" }).click();
  await expect(dialog.getByRole("alert")).toContainText("The channel was not saved: it is gone, or your role may not change channels.");
});

test("a viewer reads channels and routes and changes nothing", async ({ page, stack, errors: _ }) => {
  await open(page, stack, user(stack, "viewer"), "notifications");
  await expect(page.locator('[data-channel="On call"]')).toBeVisible();
  for (const name of [/^Edit/, /^Delete/, /^New/, /^Try/, "Send a test"]) await expect(page.getByRole("button", { name })).toHaveCount(0);
  await visit(page, "rules");
  await expect(page.getByRole("link", { name: "New rule" })).toHaveCount(0);
});
