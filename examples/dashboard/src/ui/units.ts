/** Numbers and times as people read them. */

export type Unit = "celsius" | "percent" | "volts" | "dbm" | "perMinute" | "none";

const SUFFIX: Record<Unit, string> = {
  celsius: " °C",
  percent: " %",
  volts: " V",
  dbm: " dBm",
  perMinute: " /min",
  none: "",
};

/** Three digits that mean something; two after the point for volts, whose changes are small, none for dBm. */
export function number(value: number | null, unit: Unit = "none"): string {
  if (value === null || !Number.isFinite(value)) return "none";
  const size = Math.abs(value);
  const digits = unit === "volts" ? 2 : unit === "dbm" ? 0 : size >= 100 || (unit === "none" && Number.isInteger(value)) ? 0 : size >= 1 ? 1 : 3;
  const text = value.toLocaleString(undefined, {
    minimumFractionDigits: unit === "none" ? 0 : digits,
    maximumFractionDigits: digits,
  });
  return text + SUFFIX[unit];
}

const STEPS: [number, string][] = [
  [86_400, "d"],
  [3600, "h"],
  [60, "min"],
  [1, "s"],
];

/** `2 h 5 min` */
export function duration(seconds: number): string {
  const whole = Math.max(0, Math.round(seconds));
  const at = STEPS.findIndex(([size]) => whole >= size);
  if (at < 0) return "0 s";
  const [size, unit] = STEPS[at]!;
  const first = `${Math.floor(whole / size)} ${unit}`;
  const next = STEPS[at + 1];
  const rest = next && at < 2 ? Math.floor((whole % size) / next[0]) : 0;
  return rest ? `${first} ${rest} ${next![1]}` : first;
}

/** `3 min ago`, for what has happened. Never in the future: the page's clock moves every 15 s, and events do not wait. */
export function ago(ms: number, now: number): string {
  const seconds = (now - ms) / 1000;
  return seconds < 5 ? "just now" : `${duration(seconds)} ago`;
}

/** `3 min ago`, `in 2 h`, for what may lie on either side. */
export function relative(ms: number, now: number): string {
  return ms - now >= 5000 ? `in ${duration((ms - now) / 1000)}` : ago(ms, now);
}

/** Of a value that could not be read again. */
export function staleWords(at: number, now: number): string {
  return `not current: ${duration((now - at) / 1000)} old`;
}

/** With the zone named: a screenshot goes to people elsewhere. */
export function absolute(ms: number): string {
  return new Date(ms).toLocaleString(undefined, { dateStyle: "medium", timeStyle: "long" });
}

/** The only clock of the page: of 12 or 24 hours, as the reader's language has it. */
export function clock(ms: number, withSeconds = false): string {
  return new Date(ms).toLocaleTimeString(undefined, { hour: "2-digit", minute: "2-digit", ...(withSeconds ? { second: "2-digit" } : {}) });
}
