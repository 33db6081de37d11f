import type { Clock } from '../clock.ts'
import type { Entry } from './entry.ts'
import { InHand } from './in-hand.ts'

/** How long a suspect may keep others from starting, and others may keep a suspect waiting. */
export const quarantineMs: number = 5_000

/**
 * Jobs whose earlier start was lost in a crash run alone, one at a time, in all queues of the client: if one of them
 * kills the process, it uses up its own attempts and nobody else's. What started before a suspect is waited for, and
 * starts while it runs are held, each for at most {@link quarantineMs}: a killer kills at once, and a long job must not
 * stop the worker.
 */
export class Quarantine {
  readonly #clock: Clock
  readonly #waiting: { readonly entry: Entry; readonly owner: object }[] = []
  readonly #started = new InHand<Entry>()
  readonly #listeners = new Set<() => void>()
  #running: Entry | undefined

  constructor(clock: Clock) {
    this.#clock = clock
  }

  /** Calls back whenever somebody may start who might not before; returns what unsubscribes. */
  onChange(listener: () => void): () => void {
    this.#listeners.add(listener)
    return () => this.#listeners.delete(listener)
  }

  add(entry: Entry, owner: object): void {
    entry.suspect = true
    this.#waiting.push({ entry, owner })
  }

  started(entry: Entry): void {
    entry.startedAtMs = this.#clock.monotonicMs()
    this.#started.add(entry)
  }

  /** The entry's end is recorded, or it never began. */
  ended(entry: Entry): void {
    this.#started.delete(entry)
    entry.startedAtMs = undefined
    if (this.#running === entry) this.#running = undefined
    else if (this.#waiting.length === 0) return
    for (const listener of this.#listeners) listener()
  }

  /** The next suspect, if it is this owner's and may run now. It counts as running from here. */
  take(owner: object): Entry | undefined {
    const next = this.#waiting[0]
    if (!next || next.owner !== owner || this.#running || this.#youngestMs() < quarantineMs) return undefined
    this.#waiting.shift()
    this.#running = next.entry
    return next.entry
  }

  /** Milliseconds for which nothing ordinary may start; 0 = go. */
  holdMs(): number {
    if (this.#running) {
      const { startedAtMs } = this.#running
      const ranMs = startedAtMs === undefined ? 0 : this.#clock.monotonicMs() - startedAtMs
      return Math.max(0, quarantineMs - ranMs)
    }
    if (this.#waiting.length === 0) return 0
    return Math.max(0, quarantineMs - this.#youngestMs())
  }

  /** Those of this owner who wait, to be handed back at shutdown. */
  drain(owner: object): Entry[] {
    const theirs = this.#waiting.filter((waiting) => waiting.owner === owner)
    for (const waiting of theirs) this.#waiting.splice(this.#waiting.indexOf(waiting), 1)
    return theirs.map(({ entry }) => entry)
  }

  /** How long the job that started last has been running; Infinity if none is. */
  #youngestMs(): number {
    let latest = Number.NEGATIVE_INFINITY
    for (const { startedAtMs } of this.#started.all()) latest = Math.max(latest, startedAtMs!)
    return this.#clock.monotonicMs() - latest
  }
}
