/**
 * Matchers on labels, in silences and in routes. Their regular expressions are never evaluated here: whoever may
 * write a silence or a route could otherwise freeze the page of every member with one that backtracks. Forms that
 * can be read as plain text are, and the rest is for the Alertmanager to judge.
 */
import type { Matcher } from "./alertmanager.ts";
import type { Labels } from "./prometheus.ts";

const FORM = /^([^\s=!~]+)\s*(=~|!~|!=|=)\s*(?:"((?:[^"\\]|\\.)*)"|(\S*))$/;

/** `severity=~"critical|page"`; null if it has another form. */
export function parseMatcher(text: string): Matcher | null {
  const found = FORM.exec(text.trim());
  if (!found) return null;
  const [, name = "", operator = "=", quoted, bare = ""] = found;
  const value = quoted === undefined ? bare : quoted.replace(/\\(.)/g, (_, c: string) => (c === "n" ? "\n" : c));
  return { name, value, isRegex: operator.endsWith("~"), isEqual: !operator.startsWith("!") };
}

export function formatMatcher({ name, value, isRegex, isEqual }: Matcher): string {
  return `${name}${isRegex ? (isEqual ? "=~" : "!~") : isEqual ? "=" : "!="}${JSON.stringify(value)}`;
}

/** Null if that cannot be told here. A label that is absent has the empty value, as in Alertmanager. */
export function matches({ name, value, isRegex, isEqual }: Matcher, labels: Labels): boolean | null {
  const actual = Object.hasOwn(labels, name) ? labels[name]! : "";
  const fits = isRegex ? patternFits(value, actual) : value === actual;
  return fits === null ? null : fits === isEqual;
}

/** Null if that cannot be told here. */
export function allMatch(matchers: Matcher[], labels: Labels): boolean | null {
  const found = matchers.map((matcher) => matches(matcher, labels));
  return found.includes(false) ? false : found.includes(null) ? null : true;
}

/** A piece of plain text, after at least `gap` characters of any kind; null is exactly none. */
interface Piece {
  gap: number | null;
  text: string;
}

/** Whether the pattern is all of the text. Null if it has more than text, `|`, `.*` and `.+`. */
function patternFits(pattern: string, text: string): boolean | null {
  const alternatives = alternativesOf(pattern);
  // A dot is any character but a line's end.
  if (!alternatives || text.includes("\n")) return null;
  return alternatives.some((pieces) => piecesFit(pieces, text));
}

function alternativesOf(pattern: string): Piece[][] | null {
  let pieces: Piece[] = [{ gap: null, text: "" }];
  const alternatives = [pieces];
  for (const [token] of pattern.matchAll(/\.[*+]|\\?[\s\S]/g)) {
    if (token === "|") alternatives.push((pieces = [{ gap: null, text: "" }]));
    else if (token.length === 2 && token[0] === ".") pieces.push({ gap: token === ".+" ? 1 : 0, text: "" });
    else if (/^(?:\\[!-/:-@[-`{-~]|[^\\.+*?()[\]{}^$])$/.test(token)) pieces.at(-1)!.text += token.at(-1)!;
    else return null;
  }
  return alternatives;
}

/** Takes each piece where it is found first: what comes later then has the most room. */
function piecesFit(pieces: Piece[], text: string): boolean {
  let at = 0;
  for (const [index, { gap, text: piece }] of pieces.entries()) {
    const isLast = index === pieces.length - 1;
    const from = at + (gap ?? 0);
    const found = isLast ? text.length - piece.length : gap === null ? from : text.indexOf(piece, from);
    if (found < from || (gap === null && found !== from) || !text.startsWith(piece, found)) return false;
    at = found + piece.length;
  }
  return true;
}
