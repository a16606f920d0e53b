/** Matchers on labels, in silences and in routes. */
import type { Matcher } from "./alertmanager.ts";
import type { Labels } from "./prometheus.ts";

const FORM = /^\s*([^\s=!~]+)\s*(=~|!~|!=|=)\s*(?:"((?:[^"\\]|\\.)*)"|(\S*))\s*$/;

/** `severity=~"critical|page"`; null if it has another form. */
export function parseMatcher(text: string): Matcher | null {
  const found = FORM.exec(text);
  if (!found) return null;
  const [, name = "", operator = "=", quoted, bare = ""] = found;
  const value = quoted === undefined ? bare : quoted.replace(/\\(.)/g, (_, c: string) => (c === "n" ? "\n" : c));
  return { name, value, isRegex: operator.endsWith("~"), isEqual: !operator.startsWith("!") };
}

export function formatMatcher({ name, value, isRegex, isEqual }: Matcher): string {
  return `${name}${isRegex ? (isEqual ? "=~" : "!~") : isEqual ? "=" : "!="}${JSON.stringify(value)}`;
}

/** A label that is absent has the empty value, as in Alertmanager. */
export function matches(matcher: Matcher, labels: Labels): boolean {
  const value = labels[matcher.name] ?? "";
  return matcher.isEqual === (matcher.isRegex ? anchored(matcher.value).test(value) : value === matcher.value);
}

export function allMatch(matchers: Matcher[], labels: Labels): boolean {
  return matchers.every((matcher) => matches(matcher, labels));
}

/** Alertmanager's expressions are Go's: what JavaScript cannot read matches nothing here. */
function anchored(pattern: string): RegExp {
  try {
    return new RegExp(`^(?:${pattern})$`, "s");
  } catch {
    return /(?!)/;
  }
}
