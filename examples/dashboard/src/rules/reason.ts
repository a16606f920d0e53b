/** What a status' reason says, and which field of the editor each part of it is about. */

/** The columns of a rule, as the proxy names them, and as a sentence about one begins. */
const FIELDS = {
  name: "the name",
  expr: "the expression",
  for_duration: "“For”",
  keep_firing_for: "“Keep firing for”",
  evaluation_interval: "“Every”",
  rule_group: "the group",
  labels: "the labels",
  annotations: "the annotations",
  enabled: "“On”",
};
export type Field = keyof typeof FIELDS;

export interface Fault {
  /** Null for what is about the rule as a whole, such as a failed evaluation. */
  field: Field | null;
  /** Where in the expression, counted from 0, in UTF-16 units as an editor counts. Null if no place is named. */
  at: number | null;
  words: string;
}

const COLUMN = `(?:${Object.keys(FIELDS).join("|")})`;
/** Faults are joined by semicolons, which are in a fault, too. */
const BETWEEN = new RegExp(`; (?=${COLUMN}: )`);
/** `expr: 1:5: unexpected …` from the proxy, `expr, line 1, column 5: unexpected …` from Mimir, `labels: are 65; …`. */
const FORM = new RegExp(`^(${COLUMN})(?:, line (\\d+), column (\\d+):|: (\\d+):(\\d+):|:) (.*)$`, "s");

/** Lines and columns of a reason are counted from 1. */
export function faultsOf(reason: string, expr: string): Fault[] {
  return reason.split(BETWEEN).filter(Boolean).map((part) => {
    const found = FORM.exec(part);
    if (!found) return { field: null, at: null, words: part };
    const field = found[1] as Field;
    const [line, column] = [found[2] ?? found[4], found[3] ?? found[5]];
    // That it is the expression which could not be parsed is said by where the words stand.
    const said = found[6]!.replace(/^could not parse expression: /, "");
    const words = /^(is|are|has|have|holds?|contains?) /.test(said) ? `${FIELDS[field]} ${said}` : said;
    return { field, at: field === "expr" && line ? placeOf(expr, Number(line), Number(column)) : null, words };
  });
}

function placeOf(expr: string, line: number, column: number): number {
  const lines = expr.split("\n");
  const before = lines.slice(0, line - 1).reduce((sum, text) => sum + text.length + 1, 0);
  // Columns count characters; an editor counts a character beyond the basic plane twice.
  const inLine = [...(lines[line - 1] ?? "")].slice(0, column - 1).join("").length;
  return Math.min(before + inLine, expr.length);
}

/** The same for a list of rules, where no field is beside the words. */
export function named({ field, words }: Fault): string {
  return field === null || field === "expr" || words.startsWith(FIELDS[field]) ? words : `${FIELDS[field]}: ${words}`;
}
