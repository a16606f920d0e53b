/** Where an alert goes: the walk that Alertmanager makes through the routes. */
import { matches, parseMatcher } from "../data/matchers.ts";
import type { Labels } from "../data/prometheus.ts";
import type { Channel, Route } from "../data/rows.ts";

/** `maybe`: it depends on labels that only the series have, or on a pattern that only Mimir evaluates. */
export type Certainty = "yes" | "maybe";
export interface Landing {
  channel: string;
  certainty: Certainty;
  /** Null: as a default channel. */
  route: string | null;
}

/**
 * The channels that an alert reaches. With `open`, the labels are those that a rule sets, and the alerts can
 * have others: a matcher on another label may match or not.
 */
export function landings(labels: Labels, routes: Route[], channels: Channel[], open = false): Landing[] {
  const usable = new Set(channels.filter((channel) => channel.enabled).map((channel) => channel.id));
  const found: Landing[] = [];
  let certainty: Certainty = "yes";
  for (const route of routes) {
    if (!route.enabled || !usable.has(route.channel_id)) continue;
    const verdict = judge(route.matchers ?? [], labels, open);
    if (verdict === "no") continue;
    found.push({ channel: route.channel_id, certainty: verdict === "maybe" ? verdict : certainty, route: route.id });
    if (route.continue_matching) continue;
    if (verdict === "yes") return found;
    // It may have been taken by this route.
    certainty = "maybe";
  }
  // Default channels are routes at the end, without matchers, that all continue: also an alert that a route
  // took and passed on gets there.
  for (const channel of channels) {
    if (channel.is_default && usable.has(channel.id)) found.push({ channel: channel.id, certainty, route: null });
  }
  return found;
}

function judge(texts: string[], labels: Labels, open: boolean): "yes" | "no" | "maybe" {
  let verdict: "yes" | "maybe" = "yes";
  for (const text of texts) {
    const matcher = parseMatcher(text);
    if (!matcher) return "no";
    const matched = open && !Object.hasOwn(labels, matcher.name) ? null : matches(matcher, labels);
    if (matched === false) return "no";
    if (matched === null) verdict = "maybe";
  }
  return verdict;
}
