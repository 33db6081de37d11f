import type { Message } from './queue.ts'

/** A binary heap of delayed messages, the one due first on top; equal instants keep the order of sending. */
export class DueHeap {
  readonly #entries: { readonly message: Message; readonly order: number }[] = []
  #pushes = 0

  get length(): number {
    return this.#entries.length
  }

  get first(): Message | undefined {
    return this.#entries[0]?.message
  }

  push(message: Message): void {
    let at = this.#entries.length
    this.#entries.push({ message, order: this.#pushes++ })
    for (let parent = (at - 1) >> 1; at > 0 && this.#before(at, parent); parent = (at - 1) >> 1) {
      this.#swap(at, parent)
      at = parent
    }
  }

  pop(): void {
    const last = this.#entries.pop()
    if (!last || this.#entries.length === 0) return
    this.#entries[0] = last
    for (let at = 0; ; ) {
      const left = 2 * at + 1
      const right = left + 1
      let least = at
      if (left < this.#entries.length && this.#before(left, least)) least = left
      if (right < this.#entries.length && this.#before(right, least)) least = right
      if (least === at) return
      this.#swap(at, least)
      at = least
    }
  }

  #before(a: number, b: number): boolean {
    const left = this.#entries[a]!
    const right = this.#entries[b]!
    if (left.message.dueMs !== right.message.dueMs) return left.message.dueMs < right.message.dueMs
    return left.order < right.order
  }

  #swap(a: number, b: number): void {
    const entry = this.#entries[a]!
    this.#entries[a] = this.#entries[b]!
    this.#entries[b] = entry
  }
}
