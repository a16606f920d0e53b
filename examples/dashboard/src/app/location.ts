/**
 * The page's state is in the fragment of its address: `#/hubs/barn-north?org=acme&range=6h`. A link shows
 * a colleague the same, and any static host serves it without rules for paths.
 */
import { useEffect, useState } from "preact/hooks";

export interface Location {
  /** `["hubs", "barn-north"]` */
  path: string[];
  params: URLSearchParams;
}

export function parse(hash: string): Location {
  const [path = "", query = ""] = hash.replace(/^#\/?/, "").split("?", 2);
  return { path: path.split("/").filter(Boolean).map(decode), params: new URLSearchParams(query) };
}

/** A link may have been cut off in the middle of an escape. */
function decode(part: string): string {
  try {
    return decodeURIComponent(part);
  } catch {
    return part;
  }
}

export function format(path: string[], params: URLSearchParams): string {
  const query = params.toString();
  return `#/${path.map(encodeURIComponent).join("/")}${query ? `?${query}` : ""}`;
}

/** What goes along from one view to the next. */
const KEPT = ["org", "range"];

/** A link to another view, in the same organisation and range. */
export function href(...path: string[]): string {
  const params = new URLSearchParams();
  for (const name of KEPT) {
    const value = parse(location.hash).params.get(name);
    if (value) params.set(name, value);
  }
  return format(path, params);
}

export function goTo(...path: string[]): void {
  location.hash = href(...path);
}

/** Changes parameters of this view; null removes one. `replace` leaves no step for the back button. */
export function setParams(changes: Record<string, string | null>, replace = false): void {
  const { path, params } = parse(location.hash);
  for (const [name, value] of Object.entries(changes)) {
    if (value === null) params.delete(name);
    else params.set(name, value);
  }
  const next = format(path, params);
  if (next === location.hash) return;
  if (replace) {
    history.replaceState(null, "", next);
    dispatchEvent(new HashChangeEvent("hashchange"));
  } else {
    location.hash = next;
  }
}

export function useLocation(): Location {
  const [hash, setHash] = useState(location.hash);
  useEffect(() => {
    const changed = () => setHash(location.hash);
    addEventListener("hashchange", changed);
    return () => removeEventListener("hashchange", changed);
  }, []);
  return parse(hash);
}
