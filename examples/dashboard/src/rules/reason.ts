/** Where in an expression a status' reason points. */

export interface Fault {
  /** Counted from 0, in UTF-16 units as an editor counts. Null if the reason names no place. */
  at: number | null;
  words: string;
}

// That it is the expression which could not be parsed is said by where the words stand.
const FORM = /^expr, line (\d+), column (\d+): (?:could not parse expression: )?(.*)$/s;

/** `expr, line 1, column 5: unexpected …`, as the proxy writes it. Lines and columns are counted from 1. */
export function faultOf(reason: string, expr: string): Fault {
  const found = FORM.exec(reason);
  if (!found) return { at: null, words: reason };
  const [, line, column, words = ""] = found;
  const lines = expr.split("\n");
  const before = lines.slice(0, Number(line) - 1).reduce((sum, text) => sum + text.length + 1, 0);
  // Columns count characters; an editor counts a character beyond the basic plane twice.
  const inLine = [...(lines[Number(line) - 1] ?? "")].slice(0, Number(column) - 1).join("").length;
  return { at: Math.min(before + inLine, expr.length), words };
}
