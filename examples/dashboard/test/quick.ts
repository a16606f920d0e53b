import assert from "node:assert/strict";

/** What backtracks takes minutes. The processor's time counts: a busy machine is slow, too. */
export function isQuick(work: () => unknown): void {
  const before = process.cpuUsage();
  work();
  const { user, system } = process.cpuUsage(before);
  assert.ok(user + system < 5_000_000, `it takes ${(user + system) / 1e6} s`);
}
