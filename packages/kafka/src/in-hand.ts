import type { Delivery, Outcome } from '@idemq/core'
import type { KafkaRecord } from './client.ts'
import type { Feed } from './feed.ts'
import type { Membership } from './membership.ts'
import { laneOf } from './wire.ts'

/** One start of one record. */
export class HeldRecord implements Delivery {
  readonly feed: Feed
  readonly record: KafkaRecord
  readonly priorDeliveries: number
  readonly lane: string | undefined
  readonly #membership: Membership

  /** Counts the start. */
  constructor(feed: Feed, record: KafkaRecord, membership: Membership) {
    this.feed = feed
    this.record = record
    this.lane = laneOf(record)
    this.#membership = membership
    this.priorDeliveries = feed.ledger.start(record.offset)
  }

  get body(): Uint8Array {
    return this.record.value ?? new Uint8Array(0)
  }

  get holdUntilMs(): number {
    return this.feed.isLost ? 0 : this.#membership.heldUntilMs
  }
}

/** What a receiver has in hand. */
export class InHand {
  readonly #membership: Membership
  /** Told of every partition whose progress changed. */
  readonly #note: (feed: Feed) => void
  readonly #held = new Set<HeldRecord>()
  /** Ended, and it is not known whether that is written. */
  readonly #unwritten = new Set<HeldRecord>()
  /** Ordering keys of what is held. */
  readonly #lanes = new Set<string>()

  constructor(membership: Membership, note: (feed: Feed) => void) {
    this.#membership = membership
    this.#note = note
  }

  get size(): number {
    return this.#held.size
  }

  get lanes(): ReadonlySet<string> {
    return this.#lanes
  }

  /** Partitions with something in hand, and how much. */
  get feeds(): ReadonlyMap<Feed, number> {
    const counts = new Map<Feed, number>()
    for (const { feed } of this.#held) counts.set(feed, (counts.get(feed) ?? 0) + 1)
    return counts
  }

  has(delivery: HeldRecord): boolean {
    return this.#held.has(delivery)
  }

  take(feed: Feed, record: KafkaRecord): HeldRecord {
    const delivery = new HeldRecord(feed, record, this.#membership)
    this.#held.add(delivery)
    if (delivery.lane !== undefined) this.#lanes.add(delivery.lane)
    this.#note(feed)
    return delivery
  }

  /** False where it is not ours to end, nor was and only remains to be written. */
  end(delivery: HeldRecord, outcome: Outcome): boolean {
    if (!this.#held.has(delivery)) return this.#unwritten.has(delivery)
    this.#unwritten.add(delivery)
    if (outcome === 'release') this.giveBack(delivery)
    else {
      this.#drop(delivery)
      delivery.feed.ledger.finish(delivery.record.offset)
      this.#note(delivery.feed)
    }
    return true
  }

  /** As if it had not been started. */
  giveBack(delivery: HeldRecord): void {
    if (!this.#held.has(delivery)) return
    this.#drop(delivery)
    delivery.feed.ledger.giveBack(delivery.record.offset)
    delivery.feed.putBack(delivery.record)
    this.#note(delivery.feed)
  }

  /** Its end is written. False where the partition was lost before. */
  wrote(delivery: HeldRecord): boolean {
    return this.#unwritten.delete(delivery) && !delivery.feed.isLost
  }

  /** All of these partitions, also what ended and may not be written. */
  lose(feeds: ReadonlySet<Feed>): HeldRecord[] {
    const gone = [...this.#held, ...this.#unwritten].filter(({ feed }) => feeds.has(feed))
    for (const delivery of gone) {
      this.#unwritten.delete(delivery)
      this.#drop(delivery)
    }
    return gone
  }

  #drop(delivery: HeldRecord): void {
    if (this.#held.delete(delivery) && delivery.lane !== undefined) this.#lanes.delete(delivery.lane)
  }
}
