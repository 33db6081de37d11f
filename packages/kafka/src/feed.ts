import type { Fetched, KafkaRecord, TopicPartition } from './client.ts'
import { shortestRungMs } from './delays.ts'
import { Ledger } from './ledger.ts'
import { dueMsOf, laneOf, sizeOf } from './wire.ts'

/** Records read ahead of one partition, and their bytes, beyond which no more is fetched. */
const aheadRecords = 1_000
const aheadBytes = 1024 * 1024
/** Records passed over and waiting: not due yet, or behind another of their ordering key. */
const maxAside = 256
/** As many that are not due are waited for in memory; above that they go down the ladder. */
const maxHeld = 64

/** What a look at a partition found. */
export interface Look {
  readonly ready: KafkaRecord[]
  /** Not due for a while: to be sent on to a lower rung. */
  readonly onward: KafkaRecord[]
  /** When something may be ready next, as epoch milliseconds. */
  readonly nextMs: number
}

/** One partition that is ours: what was read ahead of it, and what is done of it. */
export class Feed implements TopicPartition {
  readonly topic: string
  readonly partition: number
  /** What the rung of this topic waits before it looks at a record. */
  readonly #waitMs: number
  #ledger: Ledger | undefined
  #position = 0
  #buffer: KafkaRecord[] = []
  #head = 0
  #bytes = 0
  /** In the order of offsets. */
  #aside: KafkaRecord[] = []
  /** Undone records below the frontier that were not read again yet. */
  #unread: number[] = []
  #closed = false
  #lost = false

  constructor({ topic, partition }: TopicPartition, waitMs: number) {
    this.topic = topic
    this.partition = partition
    this.#waitMs = waitMs
  }

  get isLoaded(): boolean {
    return this.#ledger !== undefined
  }

  /** Somebody else's, or nobody's. */
  get isLost(): boolean {
    return this.#lost
  }

  /** @throws where it is not loaded */
  get ledger(): Ledger {
    return this.#ledger!
  }

  /** Where to fetch from. */
  get offset(): number {
    return this.#position
  }

  get wantsMore(): boolean {
    return this.isLoaded && !this.#closed && this.#buffer.length - this.#head < aheadRecords && this.#bytes < aheadBytes
  }

  load(offset: number, metadata: string): void {
    this.#ledger = new Ledger(offset, metadata)
    this.#position = offset
    this.#unread = [...this.#ledger.undone]
  }

  /** Takes what was fetched, unless it was asked for at another position. */
  append({ offset, nextOffset, records }: Fetched): void {
    if (this.#closed || offset !== this.#position) return
    for (const record of records) {
      // What is not there (any more) cannot be done.
      while (this.#unread[0] !== undefined && this.#unread[0] < record.offset) this.ledger.finish(this.#unread.shift()!)
      if (this.#unread[0] === record.offset) this.#unread.shift()
      if (this.ledger.isDone(record.offset)) continue
      this.#buffer.push(record)
      this.#bytes += sizeOf(record)
    }
    this.#position = nextOffset
  }

  /** The broker deleted what was at the position: goes on at `firstOffset`. */
  skipTo(firstOffset: number): void {
    while (this.#unread[0] !== undefined && this.#unread[0] < firstOffset) this.ledger.finish(this.#unread.shift()!)
    this.#position = firstOffset
  }

  /** Up to `max` records that may start now; those of `busy` lanes wait. They are not started yet. */
  look(max: number, nowMs: number, busy: ReadonlySet<string>): Look {
    const found: { ready: KafkaRecord[]; onward: KafkaRecord[]; nextMs: number } = {
      ready: [],
      onward: [],
      nextMs: Number.POSITIVE_INFINITY,
    }
    if (!this.isLoaded || this.#closed) return found
    const taken = new Set(busy)
    const isReady = (record: KafkaRecord): boolean => {
      const dueMs = dueMsOf(record)
      if (dueMs > nowMs) {
        found.nextMs = Math.min(found.nextMs, dueMs)
        return false
      }
      const lane = laneOf(record)
      if (lane === undefined) return true
      if (taken.has(lane)) return false
      taken.add(lane)
      return true
    }
    if (this.#aside.length > 0) {
      this.#aside = this.#aside.filter((record) => {
        if (found.ready.length >= max || !isReady(record)) return true
        found.ready.push(record)
        return false
      })
    }
    while (found.ready.length < max) {
      const record = this.#buffer[this.#head]
      if (!record) break
      const lookMs = this.#waitMs === 0 ? 0 : record.timestampMs + this.#waitMs
      if (lookMs > nowMs) {
        found.nextMs = Math.min(found.nextMs, lookMs)
        break
      }
      if (!this.ledger.hasRoomFor(record.offset)) break
      if (isReady(record)) found.ready.push(record)
      else if (this.#goesOn(record, nowMs)) found.onward.push(record)
      else if (this.#aside.length < maxAside) this.#aside.push(record)
      else break
      this.ledger.pass(record.offset)
      this.#shift(record)
    }
    return found
  }

  /** Back in its place, to be looked at again. */
  putBack(record: KafkaRecord): void {
    if (this.#closed) return
    const at = this.#aside.findLastIndex(({ offset }) => offset < record.offset)
    this.#aside.splice(at + 1, 0, record)
  }

  /** Nothing more is read or handed out of it. */
  close(): void {
    this.#closed = true
    this.#buffer = []
    this.#aside = []
    this.#head = 0
    this.#bytes = 0
  }

  lose(): void {
    this.#lost = true
    this.close()
  }

  #goesOn(record: KafkaRecord, nowMs: number): boolean {
    if (dueMsOf(record) - nowMs < shortestRungMs) return false
    return this.#waitMs === 0 || this.#aside.length >= maxHeld
  }

  #shift(record: KafkaRecord): void {
    this.#head++
    this.#bytes -= sizeOf(record)
    if (this.#head < this.#buffer.length && this.#head < aheadRecords) return
    this.#buffer = this.#buffer.slice(this.#head)
    this.#head = 0
  }
}
