/** What a view shows when it is not full: loading, empty, or an error. */
import type { ComponentChildren } from "preact";
import { advice, type Refused } from "../data/proxy.ts";
import type { Loaded } from "../data/load.ts";
import { Chip } from "./chip.tsx";
import { Copy } from "./copy.tsx";
import { Icon, icons } from "./icons.tsx";
import { ago, staleWords } from "./units.ts";

/** Has the shape of what comes, so that nothing moves when it is there. */
export function Skeleton({ shape, rows = 5 }: { shape: "chart" | "table" | "fact" | "cards"; rows?: number }) {
  return (
    <div class={`skeleton ${shape}`} role="status" aria-label="Loading">
      {Array.from({ length: shape === "table" || shape === "cards" ? rows : 1 }, (_, at) => (
        <div key={at} class="bone" />
      ))}
    </div>
  );
}

interface EmptyProps {
  title: string;
  children?: ComponentChildren;
  /** The one thing to do. */
  action?: ComponentChildren;
}

export function Empty({ title, children, action }: EmptyProps) {
  return (
    <div class="empty">
      <p class="strong">{title}</p>
      {children && <p class="muted">{children}</p>}
      {action}
    </div>
  );
}

interface ErrorProps {
  error: Refused;
  retry?: () => void;
  small?: boolean;
  /** When what is shown beside it was read (ms), if something is. */
  stale?: number | undefined;
}

export function ErrorNote({ error, retry, small, stale }: ErrorProps) {
  return (
    <div class={`error-note ${small ? "small" : ""}`} role="alert">
      <Icon of={icons.CircleAlert} />
      <div>
        <p class="strong">{sentence(error.reason)}</p>
        <p class="muted">
          {stale ? `What you see is from ${ago(stale, Date.now())}. ` : ""}
          {advice(error.status)}
        </p>
        {error.requestId && (
          <p class="muted">
            Request <code>{error.requestId}</code> <Copy text={error.requestId} what="request ID" />
          </p>
        )}
      </div>
      {retry && <button type="button" class="small" onClick={retry}>Try again</button>}
    </div>
  );
}

/** Beside a value that could not be read again: how old it is, and why. Nothing as long as reading succeeds. */
export function Stale({ of: { data, error, at } }: { of: Pick<Loaded<unknown>, "data" | "error" | "at"> }) {
  if (!error || data === undefined) return null;
  return (
    <span role="status">
      <Chip meaning="warning" title={sentence(error.reason)}>{staleWords(at, Date.now())}</Chip>
    </span>
  );
}

/** The proxy's errors begin in lower case and have no full stop, so that they can be put into sentences. */
export function sentence(text: string): string {
  const trimmed = text.trim();
  return trimmed.charAt(0).toUpperCase() + trimmed.slice(1) + (/[.!?]$/.test(trimmed) ? "" : ".");
}
