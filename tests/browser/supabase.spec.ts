/** The stand-in for Supabase, asked by the real supabase-js: pages depend on each of these answers. */
import { expect, signedIn, supabase, test, user } from "./fixtures.ts";

test("a wrong password, an unknown user and a missing key are refused as Supabase does", async ({ request, stack }) => {
  const client = supabase(stack);
  const { email, password } = user(stack, "viewer");
  for (const credentials of [{ email, password: "wrong" }, { email: "nobody@example.com", password }]) {
    const { data, error } = await client.auth.signInWithPassword(credentials);
    expect(error).toMatchObject({ status: 400, code: "invalid_credentials", message: "Invalid login credentials" });
    expect(data.session).toBeNull();
  }
  const { error } = await client.auth.signUp({ email: "new@example.com", password });
  expect(error).toMatchObject({ status: 422, code: "signup_disabled" });
  expect((await request.get(`${stack.supabase.url}/rest/v1/alert_rule`)).status()).toBe(401);
  expect((await request.get(`${stack.supabase.url}/auth/v1/.well-known/jwks.json`)).status()).toBe(200);
});

test("refresh tokens rotate, and a session ends with its sign-out, at the proxy too", async ({ request, stack }) => {
  const client = await signedIn(stack, user(stack, "viewer"));
  const first = (await client.auth.getSession()).data.session;
  const second = (await client.auth.refreshSession()).data.session;
  expect(second?.refresh_token).not.toBe(first?.refresh_token);
  expect(second?.access_token).not.toBe(first?.access_token);
  expect((await client.auth.getUser()).data.user?.email).toBe(user(stack, "viewer").email);
  const bad = await client.auth.refreshSession({ refresh_token: "unknown" });
  expect(bad.error).toMatchObject({ status: 400, code: "refresh_token_not_found" });

  const renewed = await signedIn(stack, user(stack, "viewer"));
  const session = (await renewed.auth.getSession()).data.session;
  const whoami = async () =>
    (await request.get(`${stack.proxy}/admin/whoami`, { headers: { Authorization: `Bearer ${session?.access_token}` } })).status();
  expect(await whoami()).toBe(200);
  expect((await renewed.auth.signOut({ scope: "local" })).error).toBeNull();
  // The proxy remembers for a while that a session is active (database.session_ttl).
  await expect.poll(whoami, { timeout: 25_000 }).toBe(401);
});

test("tables have their own row-level security", async ({ stack }) => {
  const [a, b] = stack.organisations.map(({ id }) => id);
  const editor = await signedIn(stack, user(stack, "editor"));
  const viewer = await signedIn(stack, user(stack, "viewer"));
  const other = await signedIn(stack, user(stack, "admin", 1));

  const read = await viewer.from("alert_rule").select("name,enabled").neq("name", "BatteryLow").in("name", ["ColdStoreWarm", "UplinkWeak", "BatteryLow"]).order("name");
  expect(read.data).toEqual([{ name: "ColdStoreWarm", enabled: true }, { name: "UplinkWeak", enabled: false }]);
  expect((await other.from("alert_rule").select("name")).data).toEqual([{ name: "BoilerHot" }]);
  const counted = await viewer.from("alert_rule").select("*", { count: "exact", head: true }).is("enabled", false);
  expect(counted.count).toBe(1);

  const rule = { organisation_id: a, name: "Spec's \"rule\"", expr: "vector(1) > 2", labels: { team: "spec" } };
  const refused = await viewer.from("alert_rule").insert(rule);
  expect(refused.error).toMatchObject({ code: "42501" });
  expect(refused.status).toBe(403);
  const foreign = await editor.from("alert_rule").insert({ ...rule, organisation_id: b });
  expect(foreign.error).toMatchObject({ code: "42501" });

  const made = await editor.from("alert_rule").insert(rule).select("id,name,labels").single();
  expect(made).toMatchObject({ status: 201, data: { name: rule.name, labels: { team: "spec" } } });
  const id = made.data?.id as string;
  const changed = await editor.from("alert_rule").update({ enabled: false, annotations: { a: "b" } }).eq("id", id).select("enabled,annotations");
  expect(changed.data).toEqual([{ enabled: false, annotations: { a: "b" } }]);
  expect((await other.from("alert_rule").update({ enabled: true }).eq("id", id).select("id")).data).toEqual([]);
  expect((await other.from("alert_rule").select("id").eq("id", id).single()).error).toMatchObject({ code: "PGRST116" });
  expect((await other.from("alert_rule").select("id").eq("id", id).maybeSingle()).data).toBeNull();
  const gone = await editor.from("alert_rule").delete().eq("id", id).select("id");
  expect(gone.data).toEqual([{ id }]);
});

test("what PostgREST refuses is refused in its words", async ({ stack }) => {
  const editor = await signedIn(stack, user(stack, "editor"));
  expect((await editor.from("no_such_table").select()).error).toMatchObject({ code: "PGRST205" });
  expect((await editor.from("alert_rule").select("no_such_column")).error).toMatchObject({ code: "42703" });
  expect((await editor.from("alert_rule").insert({ nothing: 1 })).error).toMatchObject({ code: "PGRST204" });
  expect((await editor.from("alert_rule").select("id").eq("id", "no uuid")).error).toMatchObject({ code: "22P02" });
  expect((await editor.from("alert_rule_sync").select()).error).toMatchObject({ code: "42501" });
  expect((await editor.from("alert_rule").select("name").or("a.eq.1,b.eq.2")).error?.message).toContain("stand-in");
  // An identifier in the place of a column cannot leave its quotes.
  const injected = await editor.from("alert_rule").select('name";drop table alert_rule;--');
  expect(injected.error).toMatchObject({ code: "42703" });
  expect((await editor.from("alert_rule").select("name").limit(1)).data).toHaveLength(1);
});

test("an upsert changes what is there", async ({ stack }) => {
  const [a] = stack.organisations.map(({ id }) => id);
  const editor = await signedIn(stack, user(stack, "editor"));
  const channel = { organisation_id: a, name: "spec", kind: "webhook", secrets: { url: "http://127.0.0.1:9/hook" } };
  const made = await editor.from("notification_channel").insert(channel).select("id,secrets").single();
  expect(made.data?.secrets).toEqual({ url: "<secret>" });
  // Authors may not write `id`: the policy of the migrations, not the stand-in, refuses it.
  const upsert = await editor.from("notification_channel").upsert({ id: made.data?.id as string, ...channel });
  expect(upsert.error).toMatchObject({ code: "42501" });
  expect((await editor.from("notification_channel").delete().eq("id", made.data?.id as string)).error).toBeNull();
});
