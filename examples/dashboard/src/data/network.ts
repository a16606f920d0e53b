/** Whether there is a network at all. A browser that says no is right; one that says yes may be wrong. */
export const OFFLINE = "this device is offline";

export function isOnline(): boolean {
  return typeof navigator === "undefined" || navigator.onLine !== false;
}

/** Calls back whenever the network returns. Answers how to stop that. */
export function whenOnline(back: () => void): () => void {
  addEventListener("online", back);
  return () => removeEventListener("online", back);
}
