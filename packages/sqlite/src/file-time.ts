/**
 * The time by which everything in a file is judged: the wall clock, except that it never goes back. After a step back
 * it goes on at the pace of the monotonic clock, so what was ready stays ready and delays and leases keep their length.
 * Processes agree on it through the latest time that is kept in the file.
 */
import type { Clock } from '@idemq/core'

/** What is kept may lag behind by this, so that ordinary work does not write it each time. */
const keepEveryMs = 1_000
/** Both clocks are rounded: closer than this, they agree. */
const roundingMs = 5

export class FileTime {
  readonly #clock: Clock
  #lastMs = 0
  #lastMonotonicMs = 0

  constructor(clock: Clock) {
    this.#clock = clock
  }

  /** Epoch milliseconds, whole ones, not before `keptMs`. */
  now(keptMs: number): number {
    // The wall clock first: a process that is stopped between the two makes the time late, never early.
    const wallMs = this.#clock.now()
    const monotonicMs = this.#clock.monotonicMs()
    const wentOnMs = this.#lastMs + (monotonicMs - this.#lastMonotonicMs)
    this.#lastMs = Math.max(wallMs, wentOnMs, keptMs)
    this.#lastMonotonicMs = monotonicMs
    return Math.floor(this.#lastMs)
  }

  /** Whether the wall clock lags behind, so that a process that starts now learns the time from the file alone. */
  isAheadOfWall(): boolean {
    return this.#lastMs - this.#clock.now() > roundingMs
  }

  /** Whether a write that happens anyway should keep `nowMs` in place of `keptMs`. */
  isWorthKeeping(nowMs: number, keptMs: number): boolean {
    return nowMs - keptMs >= (this.isAheadOfWall() ? 1 : keepEveryMs)
  }

  /** Whether `keptMs` would mislead others so much that it is worth a write of its own. */
  isUrgent(nowMs: number, keptMs: number): boolean {
    return nowMs - keptMs >= keepEveryMs && this.isAheadOfWall()
  }
}
