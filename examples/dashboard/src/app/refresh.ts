/** The clock of the page. It ticks every 15 s while somebody can see it. */
import { useEffect, useState } from "preact/hooks";

export const REFRESH_SECONDS = 15;

export function useNow(running: boolean): { now: number; hidden: boolean; refresh: () => void } {
  const [now, setNow] = useState(Date.now());
  const [hidden, setHidden] = useState(document.hidden);
  useEffect(() => {
    const changed = () => {
      setHidden(document.hidden);
      if (!document.hidden && running) setNow(Date.now());
    };
    document.addEventListener("visibilitychange", changed);
    return () => document.removeEventListener("visibilitychange", changed);
  }, [running]);
  useEffect(() => {
    if (!running || hidden) return;
    const timer = setInterval(() => setNow(Date.now()), REFRESH_SECONDS * 1000);
    return () => clearInterval(timer);
  }, [running, hidden]);
  return { now, hidden, refresh: () => setNow(Date.now()) };
}
