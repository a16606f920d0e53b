/**
 * Asks for one thing, again and again, and is the only place that repeats a request. A failure is told at
 * once; the next attempts wait, each longer than the one before, and for the network where there is none.
 * A change never ends a request that is under way: with changes that come faster than answers there would be
 * neither an answer nor an error.
 */
import { isOnline, OFFLINE, whenOnline } from "./network.ts";
import { isPassing, Refused, refused } from "./refused.ts";

export interface World {
  isOnline(): boolean;
  whenOnline(back: () => void): () => void;
  /** Answers how to call it off. */
  after(ms: number, work: () => void): () => void;
}

const BROWSER: World = {
  isOnline,
  whenOnline,
  after(ms, work) {
    const timer = setTimeout(work, ms);
    return () => clearTimeout(timer);
  },
};

export type Answer<T> = { data: T } | { error: Refused };

const SLOW_S = 10;
const GIVE_UP_S = 120;
const LONGEST_PAUSE_S = 60;

/** How long to wait after so many failures in a row (s). Not the same for everybody, or all come back at once. */
export function pauseAfter(failures: number, error: Refused, random = Math.random()): number {
  const grown = Math.min(LONGEST_PAUSE_S, 2 ** failures) * (0.8 + 0.4 * random);
  return Math.max(grown, Math.min(error.retryAfter ?? 0, LONGEST_PAUSE_S));
}

export class Asker<T> {
  private running: AbortController | null = null;
  private failures = 0;
  /** Something may have changed while it was asked, or while it waits. */
  private missed = false;
  private isOffline = false;
  private cancelPause: (() => void) | null = null;
  private readonly stopListening: () => void;

  constructor(
    private readonly load: (signal: AbortSignal) => Promise<T>,
    private readonly tell: (answer: Answer<T>) => void,
    private readonly world: World = BROWSER,
  ) {
    this.stopListening = world.whenOnline(() => {
      if (this.isOffline || this.failures > 0) this.now();
    });
  }

  /** It may have changed. Asks, unless it asks already or waits after a failure. */
  changed(): void {
    if (this.running || this.cancelPause) this.missed = true;
    else this.ask();
  }

  /** Somebody wants to know now. */
  now(): void {
    this.running?.abort();
    this.running = null;
    this.endPause();
    this.ask();
  }

  stop(): void {
    this.running?.abort();
    this.running = null;
    this.endPause();
    this.stopListening();
  }

  private ask(): void {
    this.missed = false;
    if (!this.world.isOnline()) {
      if (!this.isOffline) this.tell({ error: new Refused(0, OFFLINE) });
      this.isOffline = true;
      return;
    }
    this.isOffline = false;
    const abort = new AbortController();
    this.running = abort;
    const cancelSlow = this.world.after(SLOW_S * 1000, () => this.tell({ error: new Refused(0, `there is no answer after ${SLOW_S} s`) }));
    const fail = (error: Refused) => {
      this.failures++;
      this.tell({ error });
      this.pause(error);
    };
    const cancelGiveUp = this.world.after(GIVE_UP_S * 1000, () => {
      if (!end()) return;
      abort.abort();
      fail(new Refused(0, `there was no answer in ${GIVE_UP_S} s`));
    });
    /** Whether it was still wanted. */
    const end = () => {
      cancelSlow();
      cancelGiveUp();
      if (this.running !== abort) return false;
      this.running = null;
      return true;
    };
    abort.signal.addEventListener("abort", () => (cancelSlow(), cancelGiveUp()));
    this.load(abort.signal).then(
      (data) => {
        if (!end()) return;
        this.failures = 0;
        this.tell({ data });
        if (this.missed) this.ask();
      },
      (error: unknown) => end() && fail(refused(error)),
    );
  }

  private pause(error: Refused): void {
    this.cancelPause = this.world.after(pauseAfter(this.failures, error) * 1000, () => {
      this.cancelPause = null;
      // What is wrong with the question stays wrong until something changes; a session may come back.
      if (this.missed || isPassing(error) || error.status === 401) this.ask();
    });
  }

  private endPause(): void {
    this.cancelPause?.();
    this.cancelPause = null;
  }
}
