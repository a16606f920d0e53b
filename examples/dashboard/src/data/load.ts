/** Reads something for a view, and reads it again when it may have changed. */
import { useCallback, useEffect, useRef, useState } from "preact/hooks";
import { Refused } from "./proxy.ts";

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
  const [again, setAgain] = useState(0);
  const latest = useRef(load);
  latest.current = load;
  useEffect(() => {
    const abort = new AbortController();
    latest.current(abort.signal).then(
      (data) => abort.signal.aborted || setState({ key, data, at: Date.now() }),
      (error: unknown) => {
        if (abort.signal.aborted) return;
        setState((old) => ({ ...(old.key === key ? old : { key, at: 0 }), error: refused(error) }));
      },
    );
    return () => abort.abort();
  }, [key, version, again]);
  const reload = useCallback(() => setAgain((n) => n + 1), []);
  const current = state.key === key ? state : { at: 0, data: undefined, error: undefined };
  return { data: current.data, error: current.error, at: current.at, reload };
}

export function refused(error: unknown): Refused {
  if (error instanceof Refused) return error;
  return new Refused(0, error instanceof Error ? error.message : String(error));
}
