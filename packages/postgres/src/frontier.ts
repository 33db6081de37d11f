/**
 * From where a receiver or relay looks for work. Rows are taken in the order of an index, and where rows were taken
 * nothing lives any more; but their index entries stay until vacuum may remove them, which somebody's old transaction
 * can forbid for as long as it is open. Who looked from the start each time would step over all of them each time.
 *
 * So a look goes on from where the last one ended. What appears behind that (a transaction that committed late, a lock
 * that was skipped and not taken after all) is found by a look at everything, made now and then, and more rarely the
 * longer it takes.
 */
import type { Clock } from '@idemq/core'

/** Looks at everything take at most this share of the time. */
const wholeLookShare = 1 / 20
const longestPauseMs = 30_000

export class Frontier {
  readonly #clock: Clock
  readonly #everyMs: number
  #position: string | undefined
  #wholeLookDueMs = Number.NEGATIVE_INFINITY

  /** @param everyMs shortest pause between two looks at everything, in milliseconds */
  constructor(clock: Clock, everyMs: number) {
    this.#clock = clock
    this.#everyMs = everyMs
  }

  /** Runs `look` from the position that is due; `undefined` is the start. It answers where the next one goes on, or nothing to stay. */
  async look<T>(
    look: (from: string | undefined) => Promise<{ readonly found: T; readonly next: string | undefined }>,
  ): Promise<T> {
    const startMs = this.#clock.monotonicMs()
    const from = startMs >= this.#wholeLookDueMs ? undefined : this.#position
    try {
      const { found, next } = await look(from)
      this.#position = next ?? this.#position
      return found
    } finally {
      // Also after one that failed: what took too long is not to be repeated at once.
      if (from === undefined) {
        const endMs = this.#clock.monotonicMs()
        const pauseMs = Math.min(longestPauseMs, (endMs - startMs) / wholeLookShare)
        this.#wholeLookDueMs = endMs + Math.max(this.#everyMs, pauseMs)
      }
    }
  }

  /** Something was seen ahead of where the next look would begin: that begins at the start. */
  reset(): void {
    this.#wholeLookDueMs = Number.NEGATIVE_INFINITY
  }
}
