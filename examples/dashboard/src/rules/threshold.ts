/** What a page can tell of an expression without parsing PromQL: enough to draw a line. */

export interface Threshold {
  /** What is compared. */
  left: string;
  operator: ">" | "<" | ">=" | "<=" | "==" | "!=";
  value: number;
}

const COMPARISON = /^(.*[^\s<>=!])\s*(>=|<=|==|!=|>|<)\s*(-?(?:\d+(?:\.\d*)?|\.\d+)(?:e[-+]?\d+)?)\s*$/is;

/** The comparison with a number at the end of an expression, if that is what it consists of. */
export function thresholdOf(expr: string): Threshold | null {
  const found = COMPARISON.exec(expr.trim());
  if (!found) return null;
  const [, left = "", operator, value] = found;
  // `a > 1 and b > 2` has a second part that a line does not show; inside brackets it is the left side's own.
  if (/\b(and|or|unless|bool)\b|[<>]|[=!]=/i.test(outside(left)) || !balanced(left)) return null;
  return { left: left.trim(), operator: operator as Threshold["operator"], value: Number(value) };
}

/** Whether both are about the same quantity: the same metric, as it is or smoothed, whatever the labels. */
export function sameQuantity(left: string, expr: string): boolean {
  const quantity = quantityOf(left);
  return quantity !== null && quantity === quantityOf(expr);
}

const SMOOTHING = /^(?:avg|min|max|last|quantile)_over_time$/;

/**
 * The metric of `avg by (hub) (avg_over_time(metric{…}[5m]))` and the like. Word by word, and not by one regular
 * expression: members write the text, and one that backtracks would stop the page.
 */
function quantityOf(expr: string): string | null {
  const words = expr.match(/"(?:[^"\\]|\\.)*"|[\w:]+|\S/gs) ?? [];
  let at = 0;
  const take = (word: string) => words[at] === word && ++at > 0;
  const takeUntil = (word: string) => {
    while (at < words.length && !take(word)) at++;
  };
  const takeGrouping = () => {
    if (["by", "without"].includes(words[at] ?? "") && words[at + 1] === "(") takeUntil(")");
  };
  while (take("("));
  for (;;) {
    const word = words[at] ?? "";
    if (!SMOOTHING.test(word) && !["avg", "min", "max"].includes(word)) break;
    at++;
    if (!SMOOTHING.test(word)) takeGrouping();
    if (!take("(")) return null;
  }
  const metric = words[at++] ?? "";
  if (!/^[a-zA-Z_:][\w:]*$/.test(metric)) return null;
  if (take("{")) takeUntil("}");
  if (take("[")) takeUntil("]");
  while (take(")"));
  takeGrouping();
  while (take(")"));
  return at === words.length ? metric : null;
}

/** The text that is in no brackets and in no string. */
function outside(text: string): string {
  let depth = 0;
  let kept = "";
  for (const [part] of text.matchAll(/"(?:[^"\\]|\\.)*"|'(?:[^'\\]|\\.)*'|[\s\S]/g)) {
    if ("([{".includes(part)) depth++;
    else if (")]}".includes(part)) depth--;
    else if (depth === 0) kept += part;
  }
  return kept;
}

function balanced(text: string): boolean {
  let depth = 0;
  for (const [part] of text.matchAll(/"(?:[^"\\]|\\.)*"|'(?:[^'\\]|\\.)*'|[\s\S]/g)) {
    if ("([{".includes(part)) depth++;
    else if (")]}".includes(part) && --depth < 0) return false;
  }
  return depth === 0;
}
