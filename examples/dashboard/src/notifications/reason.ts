/** The reason of a status as the author of a form reads it: columns are called what their fields are called. */
import { KINDS } from "./kinds.ts";

const COLUMNS: Record<string, string> = {
  matchers: "Labels",
  group_by: "Grouped by",
  group_wait: "First after",
  group_interval: "Changes every",
  repeat_interval: "Again every",
  channel_id: "Channel",
  mute_times: "Muted times",
};

/** `group_interval: is 10ms` becomes `Changes every: is 10ms`; what is called otherwise stays. */
export function reasonWords(reason: string, kind?: string): string {
  const names: Record<string, string> = { ...COLUMNS };
  for (const { name, label, secret } of (kind && KINDS[kind]?.fields) || []) names[`${secret ? "secrets" : "settings"}.${name}`] = label;
  return reason.replace(/(^|; )([a-z_.]+):/g, (whole, before: string, column: string) => (names[column] ? `${before}${names[column]}:` : whole));
}
