/** Time as core and adapters see it. Tests pass one that they move ({@link ManualClock}). */
export interface Clock {
  /** Epoch milliseconds, for what leaves the process. May jump. */
  now(): number
  /** Milliseconds that never go back, for leases and timeouts within the process. */
  monotonicMs(): number
  /** Calls back once after `delayMs`; the result cancels. Does not keep the process alive by itself if `unref`. */
  schedule(callback: () => void, delayMs: number, unref?: boolean): () => void
}

const longestTimerMs = 2 ** 31 - 1

export const systemClock: Clock = {
  now: () => Date.now(),
  monotonicMs: () => performance.now(),
  schedule(callback, delayMs, unref = false) {
    // Beyond 24.8 days Node fires at once: cap it, whoever waits looks again.
    const timer = setTimeout(callback, Math.min(delayMs, longestTimerMs))
    if (unref) timer.unref()
    return () => clearTimeout(timer)
  },
}

/** Resolves after `delayMs`, or as soon as `signal` aborts. Never rejects: the caller looks at its signal. */
export function sleep(clock: Clock, delayMs: number, signal?: AbortSignal): Promise<void> {
  if (signal?.aborted) return Promise.resolve()
  return new Promise((resolve) => {
    const done = (): void => {
      cancel()
      signal?.removeEventListener('abort', done)
      resolve()
    }
    const cancel = clock.schedule(done, delayMs)
    signal?.addEventListener('abort', done)
  })
}

/**
 * A doorbell: `wait` resolves at the next `ring`, after `waitMs`, or on abort, whichever is first. A ring that comes
 * after `armed()` and before `wait(…, seen)` is not missed. Adapters that poll use it for their waits.
 */
export class Doorbell {
  #rings = 0
  #waiting = new Set<() => void>()
  readonly #clock: Clock
  constructor(clock: Clock) {
    this.#clock = clock
  }
  ring(): void {
    this.#rings++
    if (this.#waiting.size > 0) for (const wake of [...this.#waiting]) wake()
  }
  /** The ring count to pass to {@link wait}: take it before looking for work. */
  armed(): number {
    return this.#rings
  }
  wait(waitMs: number, seen: number, signal?: AbortSignal): Promise<void> {
    if (this.#rings !== seen || signal?.aborted || waitMs <= 0) return Promise.resolve()
    return new Promise((resolve) => {
      const done = (): void => {
        cancel()
        this.#waiting.delete(done)
        signal?.removeEventListener('abort', done)
        resolve()
      }
      const cancel = this.#clock.schedule(done, waitMs)
      this.#waiting.add(done)
      signal?.addEventListener('abort', done)
    })
  }
}

/** A clock that stands still until a test moves it. Timers fire in order, each at its own instant. */
export class ManualClock implements Clock {
  #nowMs: number
  readonly #startMs: number
  #timers: { at: number; order: number; callback: () => void }[] = []
  #order = 0
  constructor(startMs: number = Date.UTC(2026, 0, 1)) {
    this.#startMs = startMs
    this.#nowMs = startMs
  }
  now(): number {
    return this.#nowMs
  }
  monotonicMs(): number {
    return this.#nowMs - this.#startMs
  }
  schedule(callback: () => void, delayMs: number): () => void {
    const timer = { at: this.#nowMs + Math.max(0, delayMs), order: this.#order++, callback }
    this.#timers.push(timer)
    return () => {
      const at = this.#timers.indexOf(timer)
      if (at >= 0) this.#timers.splice(at, 1)
    }
  }
  /** Moves time forward, firing what falls due on the way and letting the work it starts proceed. */
  async advance(ms: number): Promise<void> {
    const until = this.#nowMs + ms
    for (;;) {
      await settleWork()
      const next = this.#timers.toSorted((a, b) => a.at - b.at || a.order - b.order)[0]
      if (!next || next.at > until) break
      this.#timers.splice(this.#timers.indexOf(next), 1)
      this.#nowMs = Math.max(this.#nowMs, next.at)
      next.callback()
    }
    this.#nowMs = until
    await settleWork()
  }
}

/** Lets promise chains and immediates that are ready run to where they wait for a timer or for I/O. */
async function settleWork(): Promise<void> {
  for (let turn = 0; turn < 20; turn++) await new Promise<void>((resolve) => setImmediate(resolve))
}
