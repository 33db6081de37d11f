import type { Clock } from '../clock.ts'
import type { Entry } from './entry.ts'

/** How long a suspect may keep others from starting, and others may keep a suspect waiting. */
export const quarantineMs: number = 5_000

/**
 * Jobs whose earlier start was lost in a crash run alone, one at a time: if one of them kills the process, it uses up
 * its own attempts and nobody else's. What started before a suspect is waited for, and starts while it runs are held,
 * each for at most {@link quarantineMs}: a killer kills at once, and a long job must not stop the worker.
 */
export class Quarantine {
  readonly #clock: Clock
  readonly #waiting: Entry[] = []
  readonly #startedAtMs = new Map<Entry, number>()
  #running: Entry | undefined

  constructor(clock: Clock) {
    this.#clock = clock
  }

  add(entry: Entry): void {
    entry.suspect = true
    this.#waiting.push(entry)
  }

  started(entry: Entry): void {
    this.#startedAtMs.set(entry, this.#clock.monotonicMs())
  }

  ended(entry: Entry): void {
    this.#startedAtMs.delete(entry)
    if (this.#running === entry) this.#running = undefined
  }

  /** The next suspect, if it may run now. It counts as running from here. */
  take(): Entry | undefined {
    if (this.#running || this.#waiting.length === 0 || this.#youngestMs() < quarantineMs) return undefined
    this.#running = this.#waiting.shift()
    return this.#running
  }

  /** Milliseconds for which nothing ordinary may start; 0 = go. */
  holdMs(): number {
    if (this.#running) {
      const startedAtMs = this.#startedAtMs.get(this.#running)
      const ranMs = startedAtMs === undefined ? 0 : this.#clock.monotonicMs() - startedAtMs
      return Math.max(0, quarantineMs - ranMs)
    }
    if (this.#waiting.length === 0) return 0
    return Math.max(1, quarantineMs - this.#youngestMs())
  }

  /** Everyone who waits, to be handed back at shutdown. */
  drain(): Entry[] {
    return this.#waiting.splice(0)
  }

  /** How long the job that started last has been running; Infinity if none is. */
  #youngestMs(): number {
    let latest = Number.NEGATIVE_INFINITY
    for (const at of this.#startedAtMs.values()) if (at > latest) latest = at
    return this.#clock.monotonicMs() - latest
  }
}
