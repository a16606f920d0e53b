/** The rows that the page reads and writes through Supabase's API. Row-level security decides who may. */
import type { PostgrestError, SupabaseClient } from "@supabase/supabase-js";
import { EXPIRED } from "./careful-fetch.ts";
import { OFFLINE } from "./network.ts";
import type { Labels } from "./prometheus.ts";
import { Refused } from "./refused.ts";

export interface Organisation {
  id: string;
  name: string;
}
export type RuleState = "pending" | "stored" | "live" | "failing" | "invalid" | "over_limit" | "disabled" | "error";
export interface RuleDraft {
  name: string;
  expr: string;
  for_duration: string;
  keep_firing_for: string;
  rule_group: string;
  evaluation_interval: string;
  labels: Labels;
  annotations: Labels;
  enabled: boolean;
}
export interface Rule extends RuleDraft {
  id: string;
  organisation_id: string;
  updated_at: string;
}
export interface RuleStatus {
  rule_id: string;
  organisation_id: string;
  state: RuleState;
  reason: string;
  synced_at: string | null;
  evaluated_at: string | null;
  notifies: boolean | null;
  updated_at: string;
}
export interface AlertEvent {
  id: string;
  organisation_id: string;
  kind: "alert" | "device_silent";
  rule_id: string | null;
  fingerprint: string;
  labels: Labels;
  annotations: Labels;
  state: "firing" | "resolved";
  started_at: string;
  ended_at: string | null;
  ended_because: "resolved" | "expired" | "reported" | "withdrawn" | null;
  /** When the proxy recorded it. */
  created_at: string;
}
export interface DeviceKey {
  id: string;
  name: string;
  key_hint: string;
  scopes: string[];
  expires_at: string | null;
  grace_seconds: number;
  revoked_at: string | null;
  last_used_at: string | null;
}
export interface ChannelDraft {
  name: string;
  kind: string;
  settings: Record<string, unknown> | null;
  /** Read as masks. A mask that is written back keeps the secret. */
  secrets: Record<string, string> | null;
  enabled: boolean;
  is_default: boolean;
}
export interface Channel extends ChannelDraft {
  id: string;
  organisation_id: string;
  created_at: string;
}
export interface RouteDraft {
  channel_id: string;
  position: number;
  matchers: string[] | null;
  group_by: string[] | null;
  group_wait: string | null;
  group_interval: string | null;
  repeat_interval: string | null;
  continue_matching: boolean;
  enabled: boolean;
}
export interface Route extends RouteDraft {
  id: string;
  mute_times: unknown[] | null;
  created_at: string;
}
/** What has become of a channel or of a route. */
export interface Status {
  state: string;
  reason: string;
  synced_at: string | null;
}
export type ChannelStatus = Status & { channel_id: string };
export type RouteStatus = Status & { route_id: string };

/** What is read in the place of a secret. */
export const MASK = "<secret>";

export class Rows {
  constructor(
    private readonly supabase: SupabaseClient,
    readonly organisation: string,
  ) {}

  rules = async (): Promise<Rule[]> => rows(await this.own("alert_rule").order("name"));

  ruleStatuses = async (): Promise<RuleStatus[]> => rows(await this.own("alert_rule_status"));

  /** What fires, and what ended last. */
  events = async (ended = 50): Promise<AlertEvent[]> => {
    const [firing, resolved] = await Promise.all([
      this.own("alert_event").eq("state", "firing").order("started_at", { ascending: false }),
      this.own("alert_event").eq("state", "resolved").order("ended_at", { ascending: false }).limit(ended),
    ]);
    return [...rows<AlertEvent>(firing), ...rows<AlertEvent>(resolved)];
  };

  /** Empty for those who may not see keys: row-level security hides rows, it does not refuse. */
  deviceKeys = async (): Promise<DeviceKey[]> => {
    const columns = "id,name,key_hint,scopes,expires_at,grace_seconds,revoked_at,last_used_at";
    return rows(await this.own("device_key", columns).order("name").limit(1000));
  };

  channels = async (): Promise<Channel[]> => rows(await this.own("notification_channel").order("created_at"));

  channelStatuses = async (): Promise<ChannelStatus[]> => rows(await this.own("notification_channel_status"));

  routes = async (): Promise<Route[]> =>
    rows(await this.own("notification_route").order("position").order("created_at"));

  routeStatuses = async (): Promise<RouteStatus[]> => rows(await this.own("notification_route_status"));

  saveRule = (draft: RuleDraft, id?: string): Promise<Rule> => this.save("alert_rule", "rule", draft, id);
  deleteRule = (id: string): Promise<void> => this.delete("alert_rule", "rule", id);

  saveChannel = (draft: ChannelDraft, id?: string): Promise<Channel> => this.save("notification_channel", "channel", draft, id);
  deleteChannel = (id: string): Promise<void> => this.delete("notification_channel", "channel", id);

  saveRoute = (draft: Partial<RouteDraft>, id?: string): Promise<Route> => this.save("notification_route", "route", draft, id);
  deleteRoute = (id: string): Promise<void> => this.delete("notification_route", "route", id);

  private async save<T>(table: string, what: string, draft: object, id?: string): Promise<T> {
    const rowsOf = this.supabase.from(table);
    const answer = id
      ? await rowsOf.update(draft).eq("id", id).select()
      : await rowsOf.insert({ ...draft, organisation_id: this.organisation }).select();
    const [saved] = rows<T>(answer);
    // Row-level security turns an update of what one may not change into an update of nothing.
    if (!saved) throw new Refused(403, `the ${what} was not saved: it is gone, or your role may not change ${what}s`);
    return saved;
  }

  private async delete(table: string, what: string, id: string): Promise<void> {
    const gone = rows(await this.supabase.from(table).delete().eq("id", id).select("id"));
    if (!gone.length) throw new Refused(403, `the ${what} was not deleted: it is gone, or your role may not change ${what}s`);
  }

  /** Repeated by asker.ts only: supabase-js would be silent about a failure for seven seconds. */
  private own(table: string, columns = "*") {
    return this.supabase.from(table).select(columns).eq("organisation_id", this.organisation).retry(false);
  }
}

export async function organisations(supabase: SupabaseClient): Promise<Organisation[]> {
  return rows(await supabase.from("organisation").select("id,name").order("name"));
}

export function rows<T>(answer: { data: unknown; error: Pick<PostgrestError, "message"> | null; status: number }): T[] {
  // Without a token, the database says which table is not for everybody.
  if (answer.status === 401) throw new Refused(401, "you are not signed in any more");
  if (answer.error) throw new Refused(answer.status, reasonOf(answer.error.message, answer.status));
  return (answer.data ?? []) as T[];
}

/** Without an answer, supabase-js has the browser's words: `TypeError: Failed to fetch`, which differ in each. */
function reasonOf(message: string, status: number): string {
  if (status !== 0) return message || `the database answered with status ${status}`;
  const own = [OFFLINE, EXPIRED].find((words) => message.includes(words));
  return own ?? "the database cannot be reached";
}
