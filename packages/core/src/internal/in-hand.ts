/** Keeps its place in the {@link InHand} it is in: one at a time. */
export interface Placed {
  place: number
}

/**
 * What a worker has in hand: members that come and go with every job. Every move is O(1); the order is none.
 *
 * Not a Set: V8 gives one that churns a new table every few hundred changes, and the old table points to the new. Once
 * one of them is in the old generation, all tables after it, and whatever was in them, survive every minor collection.
 * With Sets, and with object literals for what lives as long as a job (V8 may allocate those in the old generation to
 * begin with), a busy worker spends a third of its CPU time on copying jobs that it finished long ago.
 */
export class InHand<T extends Placed> {
  readonly #members: T[] = []

  get size(): number {
    return this.#members.length
  }

  has(member: T): boolean {
    return this.#members[member.place] === member
  }

  add(member: T): void {
    if (!this.has(member)) member.place = this.#members.push(member) - 1
  }

  /** False if it was not there. */
  delete(member: T): boolean {
    if (!this.has(member)) return false
    const last = this.#members.pop()!
    if (last !== member) {
      last.place = member.place
      this.#members[last.place] = last
    }
    return true
  }

  /** The members at this moment. */
  all(): T[] {
    return [...this.#members]
  }
}
