/** Reads something for a view, and reads it again when it may have changed. */
import { useCallback, useEffect, useRef, useState } from "preact/hooks";
import { Asker } from "./asker.ts";
import type { Refused } from "./refused.ts";

export { refused } from "./refused.ts";

export interface Loaded<T> {
  /** Undefined while it is read for the first time. Kept when a later read fails. */
  data: T | undefined;
  error: Refused | undefined;
  /** When `data` was read (ms). */
  at: number;
  reload: () => void;
}

/**
 * `key` says what is read: if it changes, what was there is forgotten. `version` says when: if it changes,
 * the old data stays until the new is there.
 */
export function useLoad<T>(key: string, version: unknown, load: (signal: AbortSignal) => Promise<T>): Loaded<T> {
  const [state, setState] = useState<{ key: string; data?: T; error?: Refused; at: number }>({ key, at: 0 });
  const latest = useRef(load);
  latest.current = load;
  const asker = useRef<Asker<T> | null>(null);
  useEffect(() => {
    const made = new Asker<T>(
      (signal) => latest.current(signal),
      (answer) =>
        setState((old) =>
          "data" in answer ? { key, data: answer.data, at: Date.now() } : { ...(old.key === key ? old : { key, at: 0 }), error: answer.error },
        ),
    );
    asker.current = made;
    return () => made.stop();
  }, [key]);
  // After the one above: it asks for the first time, too.
  useEffect(() => asker.current?.changed(), [key, version]);
  const reload = useCallback(() => asker.current?.now(), []);
  const current = state.key === key ? state : { at: 0, data: undefined, error: undefined };
  return { data: current.data, error: current.error, at: current.at, reload };
}
