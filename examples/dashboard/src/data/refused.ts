import { isOnline, OFFLINE } from "./network.ts";

/** Why something was refused or failed. `requestId` is what the operator looks for in the log. */
export class Refused extends Error {
  constructor(
    readonly status: number,
    readonly reason: string,
    readonly requestId: string | null = null,
    /** When to come back, as the server asks (s). */
    readonly retryAfter: number | null = null,
  ) {
    super(reason);
    this.name = "Refused";
  }
}

export function refused(error: unknown): Refused {
  if (error instanceof Refused) return error;
  const words = error instanceof Error ? error.message : String(error);
  return new Refused(0, UNREACHED.test(words) ? (isOnline() ? "the server cannot be reached" : OFFLINE) : words);
}

/** What Chromium, Firefox and Safari say of a request without an answer. */
const UNREACHED = /failed to fetch|networkerror when|load failed/i;

/** Whether the same request may succeed later. */
export function isPassing({ status }: Pick<Refused, "status">): boolean {
  return status === 0 || status === 429 || status >= 500;
}
