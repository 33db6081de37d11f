import type { Entry } from './entry.ts'

/** One entry of an ordering key runs at a time; the others wait in the order they came. */
export class Lanes {
  readonly #lanes = new Map<string, { holder: Entry; waiting: Entry[] }>()

  /** True if the entry may go on; false if it waits and will be returned by a later {@link leave}. */
  enter(entry: Entry): boolean {
    const key = entry.envelope.ordering_key
    if (key === undefined) return true
    const lane = this.#lanes.get(key)
    if (!lane) this.#lanes.set(key, { holder: entry, waiting: [] })
    else if (lane.holder !== entry) {
      lane.waiting.push(entry)
      return false
    }
    return true
  }

  /** The entry ended: returns who is next and holds the lane now, if anybody waited. */
  leave(entry: Entry): Entry | undefined {
    const key = entry.envelope.ordering_key
    const lane = key === undefined ? undefined : this.#lanes.get(key)
    if (!lane || lane.holder !== entry) return undefined
    const next = lane.waiting.shift()
    if (next) lane.holder = next
    else this.#lanes.delete(key!)
    return next
  }

  /** Everyone who waits, to be handed back at shutdown. */
  drain(): Entry[] {
    return [...this.#lanes.values()].flatMap((lane) => lane.waiting.splice(0))
  }
}
