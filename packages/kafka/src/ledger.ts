import { decodeState, encodeState, maxUndone, type Undone } from './offset-metadata.ts'

/** What a commit of one partition says. */
export interface Progress {
  readonly offset: number
  readonly metadata: string
}

/**
 * What is done of one partition, whatever the order it was done in. The watermark is contiguous: never past work that
 * is not done.
 */
export class Ledger {
  #frontier: number
  /** Offsets only ever come in rising, so the first is the watermark. */
  readonly #undone: Undone

  /** Starts that were alive in the last commit of a former owner ended without a word: they count. */
  constructor(offset: number, metadata: string | null) {
    const { frontier, undone } = decodeState(offset, metadata)
    for (const [each, mark] of undone) if (mark % 2 === 1) undone.set(each, mark + 1)
    this.#frontier = frontier
    this.#undone = undone
  }

  get watermark(): number {
    for (const offset of this.#undone.keys()) return offset
    return this.#frontier
  }

  /** Offsets below the frontier that are not done. */
  get undone(): readonly number[] {
    return [...this.#undone.keys()]
  }

  isDone(offset: number): boolean {
    return offset < this.#frontier && !this.#undone.has(offset)
  }

  /** Whether `offset` may be started, or passed over to start a later one. */
  hasRoomFor(offset: number): boolean {
    return offset < this.#frontier || this.#undone.size < maxUndone
  }

  /** Passed over for now: later ones may be done before it. All below it that was never passed does not exist. */
  pass(offset: number): void {
    if (offset < this.#frontier) return
    this.#undone.set(offset, 0)
    this.#frontier = offset + 1
  }

  /** Returns how often it was started before. */
  start(offset: number): number {
    this.pass(offset)
    const mark = this.#undone.get(offset) ?? 0
    this.#undone.set(offset, mark | 1)
    return mark >> 1
  }

  /** As if it had not been started. */
  giveBack(offset: number): void {
    const mark = this.#undone.get(offset)
    if (mark !== undefined) this.#undone.set(offset, mark & ~1)
  }

  finish(offset: number): void {
    this.#undone.delete(offset)
  }

  progress(): Progress {
    const offset = this.watermark
    return { offset, metadata: encodeState(offset, this.#frontier, this.#undone) }
  }

  /** For whoever comes next: what is alive here is given back, which is no crash. */
  handover(): Progress {
    const given: Undone = new Map(Array.from(this.#undone, ([offset, mark]) => [offset, mark & ~1]))
    const offset = this.watermark
    return { offset, metadata: encodeState(offset, this.#frontier, given) }
  }
}
