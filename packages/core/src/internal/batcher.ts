/**
 * Group commit: what gathers while one flush is under way is the next batch. No timers, so an idle batcher adds no
 * latency and a busy one fills its batches by itself. Results come back in the order of the items.
 */
export class Batcher<Item, Result> {
  readonly #flush: (items: Item[]) => Promise<Result[]>
  readonly #maxBatch: number
  #waiting: Pending<Item, Result>[] = []
  #flushing = false

  constructor(maxBatch: number, flush: (items: Item[]) => Promise<Result[]>) {
    this.#maxBatch = maxBatch
    this.#flush = flush
  }

  add(item: Item): Promise<Result> {
    return new Promise((resolve, reject) => {
      this.#waiting.push({ item, resolve, reject })
      this.#wake()
    })
  }

  /**
   * Many at once, for one promise. `results` fills as their flushes end and is complete when `done` resolves, which
   * rejects with the first flush that did.
   */
  addAll(items: readonly Item[]): { readonly results: readonly (Result | undefined)[]; readonly done: Promise<void> } {
    const results = new Array<Result | undefined>(items.length)
    const done = new Promise<void>((resolve, reject) => {
      let left = items.length
      if (left === 0) resolve()
      for (let i = 0; i < items.length; i++) {
        const resolveOne = (result: Result): void => {
          results[i] = result
          if (--left === 0) resolve()
        }
        this.#waiting.push({ item: items[i]!, resolve: resolveOne, reject })
      }
    })
    this.#wake()
    return { results, done }
  }

  #wake(): void {
    if (this.#flushing) return
    this.#flushing = true
    queueMicrotask(() => this.#run())
  }

  async #run(): Promise<void> {
    while (this.#waiting.length > 0) {
      const all = this.#waiting
      const batch = all.length <= this.#maxBatch ? all : all.slice(0, this.#maxBatch)
      this.#waiting = all.length <= this.#maxBatch ? [] : all.slice(this.#maxBatch)
      try {
        const results = await this.#flush(batch.map((pending) => pending.item))
        for (let i = 0; i < batch.length; i++) batch[i]!.resolve(results[i]!)
      } catch (error) {
        for (const pending of batch) pending.reject(error)
      }
    }
    this.#flushing = false
  }
}

interface Pending<Item, Result> {
  readonly item: Item
  readonly resolve: (result: Result) => void
  readonly reject: (error: unknown) => void
}
