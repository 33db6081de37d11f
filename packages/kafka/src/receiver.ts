/**
 * One receiver: a member of the group, with connections of its own. It reads its partitions ahead and hands out of them
 * what may start, once it is written down that it starts. Nobody else could have what it reads ahead.
 */
import {
  type Clock,
  type Delivery,
  Doorbell,
  IdemqError,
  type OpenOptions,
  type Receiver,
  type Settled,
  type Settlement,
} from '@idemq/core'
import type { Assignment, Claim } from './assigner.ts'
import type { Connection, GroupTimeouts, KafkaRecord } from './client.ts'
import { Committer } from './committer.ts'
import { rungFor } from './delays.ts'
import { Feed } from './feed.ts'
import { type HeldRecord, InHand } from './in-hand.ts'
import { Membership } from './membership.ts'
import { maxUndone } from './offset-metadata.ts'
import { keyOf, loadFeeds, Reader } from './reader.ts'
import { aborted, unlessAborted } from './signals.ts'
import type { KafkaWarning } from './warning.ts'
import { dueMsOf } from './wire.ts'

export interface ReceiverOptions extends OpenOptions, GroupTimeouts {
  readonly connection: Connection
  readonly group: string
  /** The topics of the group, and how long each waits before it looks at a record. */
  readonly topics: ReadonlyMap<string, number>
  readonly heartbeatMs: number
  readonly clock: Clock
  /** Sends records on to a rung of the group; rejects where it is not certain that they are stored. */
  readonly sendOn: (waitMs: number, records: readonly KafkaRecord[]) => Promise<void>
  readonly onWarning: (warning: KafkaWarning) => void
  readonly onClose: () => void
}

const settled: Settled = { status: 'settled' }
const lost: Settled = { status: 'lost' }

/** @throws IdemqError what repeating will not mend; anything else the next receive tries again */
export async function openReceiver(options: ReceiverOptions, signal: AbortSignal): Promise<Receiver> {
  const receiver = new KafkaReceiver(options)
  try {
    await unlessAborted(receiver.open(), signal, `open group '${options.group}'`)
  } catch (error) {
    await receiver.close()
    throw error
  }
  return receiver
}

class KafkaReceiver implements Receiver {
  readonly #options: ReceiverOptions
  readonly #bell: Doorbell
  readonly #membership: Membership
  readonly #committer: Committer
  readonly #inHand: InHand
  readonly #reader: Reader
  #feeds = new Map<string, Feed>()
  #loading: Promise<void> | undefined
  readonly #sendingOn = new Set<Promise<void>>()
  /** Which partition is looked at first. */
  #turn = 0
  /** For the next receive to throw. */
  #trouble: unknown
  #stopped = false
  #leaving: Promise<void> | undefined
  #closing: Promise<void> | undefined

  constructor(options: ReceiverOptions) {
    this.#options = options
    const { connection, group, topics, clock, onWarning } = options
    this.#bell = new Doorbell(clock)
    this.#membership = new Membership({
      ...options,
      topics: [...topics.keys()],
      claims: () => this.#claims(),
      isLeaving: () => this.#stopped,
      beforeJoin: (member) => this.#committer.handOver(member, [...this.#inHand.feeds.keys()]),
      onAssigned: (assignment) => this.#assigned(assignment),
      onExpelled: () => this.#lose(this.#feeds.values()),
    })
    this.#committer = new Committer(connection, group, this.#membership)
    this.#inHand = new InHand(this.#membership, (feed) => this.#committer.note(feed))
    this.#reader = new Reader({
      connection,
      onWarning,
      onTrouble: (error) => this.#failed(error),
      onTruncated: (feed, offset) => this.#beginAnew(feed, offset),
      onChange: () => this.#bell.ring(),
    })
  }

  async open(): Promise<void> {
    const { connection, topics, group, maxUnsettled, onWarning } = this.#options
    try {
      await this.#membership.join()
    } catch (error) {
      if (error instanceof IdemqError && error.retryable) return
      throw error
    }
    const [queue] = topics.keys()
    const most = connection.partitionCount(queue!) * maxUndone
    if (maxUnsettled <= most) return
    const text = `kafka: group '${group}' may have ${maxUnsettled} jobs in hand, its partitions allow ${most}: add partitions`
    onWarning({ code: 'IDEMQ_KAFKA_FEW_PARTITIONS', message: text })
  }

  async receive(max: number, waitMs: number, signal: AbortSignal): Promise<Delivery[]> {
    const { clock } = this.#options
    const untilMs = clock.monotonicMs() + waitMs
    for (;;) {
      const seen = this.#bell.armed()
      if (this.#stopped || signal.aborted) return []
      if (this.#trouble !== undefined) {
        const error = this.#trouble
        this.#trouble = undefined
        throw error
      }
      this.#keepMembership()
      const { started, nextMs } = this.#start(max)
      if (this.#membership.member) this.#reader.readMore(this.#feeds.values())
      if (started.length > 0) {
        const held = await this.#writeStarts(started)
        if (held.length > 0) return held
        continue
      }
      const leftMs = untilMs - clock.monotonicMs()
      if (leftMs <= 0) return []
      await this.#bell.wait(Math.min(leftMs, Math.max(1, nextMs - clock.now())), seen, signal)
    }
  }

  async settle(batch: readonly Settlement[], signal: AbortSignal): Promise<Settled[]> {
    const what = `settle in group '${this.#options.group}'`
    if (signal.aborted) throw aborted(signal, what)
    const ours = batch.map(({ delivery, outcome }) => this.#inHand.end(delivery as HeldRecord, outcome))
    try {
      await unlessAborted(this.#committer.flush(), signal, what)
    } finally {
      this.#bell.ring()
    }
    const answers = batch.map(({ delivery }, i) =>
      ours[i] && this.#inHand.wrote(delivery as HeldRecord) ? settled : lost,
    )
    if (this.#stopped && this.#inHand.size === 0) void this.#leave()
    return answers
  }

  async extend(deliveries: readonly Delivery[], signal: AbortSignal): Promise<Settled[]> {
    if (signal.aborted) throw aborted(signal, `extend in group '${this.#options.group}'`)
    const nowMs = this.#options.clock.monotonicMs()
    return deliveries.map((delivery) => {
      const isHeld = this.#inHand.has(delivery as HeldRecord) && delivery.holdUntilMs > nowMs
      return isHeld ? settled : lost
    })
  }

  async stop(): Promise<void> {
    this.#stopped = true
    this.#bell.ring()
    for (const feed of this.#feeds.values()) feed.close()
    if (this.#inHand.size === 0) await this.#leave()
    // What is idle goes to others at once.
    else if (this.#membership.member) this.#membership.join().catch(() => {})
  }

  close(): Promise<void> {
    this.#closing ??= this.#close()
    return this.#closing
  }

  async #close(): Promise<void> {
    this.#options.onClose()
    this.#stopped = true
    this.#bell.ring()
    await this.#leave()
    await Promise.all([this.#reader.stop(), this.#loading, ...this.#sendingOn])
    await this.#options.connection.close().catch(() => {})
  }

  /** Gives all back and leaves the group. Out of reach, it goes back when the session ends. */
  #leave(): Promise<void> {
    this.#leaving ??= (async () => {
      await this.#committer.flush().catch(() => {})
      const { member } = this.#membership
      if (member) await this.#committer.handOver(member, [...this.#inHand.feeds.keys()])
      await this.#membership.leave().catch(() => {})
      for (const feed of this.#feeds.values()) feed.lose()
      this.#inHand.lose(new Set(this.#feeds.values()))
    })()
    return this.#leaving
  }

  #claims(): Claim[] {
    const busy = new Map<number, number>()
    for (const { partition } of this.#feeds.values()) busy.set(partition, 0)
    for (const [{ partition }, count] of this.#inHand.feeds) busy.set(partition, (busy.get(partition) ?? 0) + count)
    return Array.from(busy, ([unit, count]) => ({ unit, busy: count }))
  }

  #assigned({ partitions, kept }: Assignment): void {
    const { topics, group, onWarning } = this.#options
    const before = this.#feeds
    this.#feeds = new Map()
    for (const [topic, own] of Object.entries(partitions)) {
      for (const partition of own) {
        const key = keyOf({ topic, partition })
        const feed = kept.includes(partition) ? before.get(key) : undefined
        this.#feeds.set(key, feed ?? new Feed({ topic, partition }, topics.get(topic) ?? 0))
      }
    }
    this.#lose([...before].filter(([key, feed]) => this.#feeds.get(key) !== feed).map(([, feed]) => feed))
    if (this.#feeds.size === 0 && !this.#stopped) {
      const message = `kafka: group '${group}' has more members than partitions: one of them has no work`
      onWarning({ code: 'IDEMQ_KAFKA_FEW_PARTITIONS', message })
    }
    // What was handed over for the join is alive here again.
    for (const feed of this.#inHand.feeds.keys()) this.#committer.note(feed)
    this.#committer.flush().catch(() => {})
    this.#bell.ring()
  }

  #lose(feeds: Iterable<Feed>): void {
    const gone = new Set(feeds)
    for (const feed of gone) {
      feed.lose()
      if (this.#feeds.get(keyOf(feed)) === feed) this.#feeds.delete(keyOf(feed))
    }
    const deliveries = this.#inHand.lose(gone)
    if (deliveries.length > 0) this.#options.onLost(deliveries)
    this.#bell.ring()
  }

  /** Offsets will be given again to other records: nothing that is known of them holds. */
  #beginAnew(feed: Feed, offset: number): void {
    const anew = new Feed(feed, this.#options.topics.get(feed.topic) ?? 0)
    anew.load(offset, '')
    this.#lose([feed])
    this.#feeds.set(keyOf(anew), anew)
    this.#committer.note(anew)
  }

  #failed(error: unknown): void {
    this.#trouble = error
    this.#bell.ring()
  }

  /** Joins again if the group went on without us, and loads what is new. */
  #keepMembership(): void {
    const { connection, group } = this.#options
    if (!this.#membership.member) this.#membership.join().catch((error) => this.#failed(error))
    const fresh = [...this.#feeds.values()].filter((feed) => !feed.isLoaded)
    if (fresh.length === 0 || this.#loading || this.#membership.isBetween) return
    this.#loading = loadFeeds(connection, group, fresh)
      .catch((error) => this.#failed(error))
      .finally(() => {
        this.#loading = undefined
        this.#bell.ring()
      })
  }

  /** Starts what may start: of each partition its share first, then of those that have more. */
  #start(max: number): { started: HeldRecord[]; nextMs: number } {
    const { maxUnsettled, clock } = this.#options
    const started: HeldRecord[] = []
    let nextMs = Number.POSITIVE_INFINITY
    const wanted = Math.min(max, maxUnsettled - this.#inHand.size)
    if (wanted <= 0 || this.#membership.isBetween || !this.#membership.member) return { started, nextMs }
    const feeds = [...this.#feeds.values()]
    this.#turn++
    for (const share of [Math.ceil(wanted / Math.max(1, feeds.length)), wanted]) {
      for (let i = 0; i < feeds.length && started.length < wanted; i++) {
        const feed = feeds[(this.#turn + i) % feeds.length]!
        const look = feed.look(Math.min(share, wanted - started.length), clock.now(), this.#inHand.lanes)
        nextMs = Math.min(nextMs, look.nextMs)
        for (const record of look.ready) started.push(this.#inHand.take(feed, record))
        if (look.onward.length > 0) this.#sendOn(feed, look.onward)
      }
    }
    return { started, nextMs }
  }

  /** Nothing is handed out before it is written that it starts: a crash from then on counts. */
  async #writeStarts(started: readonly HeldRecord[]): Promise<HeldRecord[]> {
    try {
      await this.#committer.flush()
    } catch (error) {
      for (const delivery of started) this.#inHand.giveBack(delivery)
      throw error
    }
    return started.filter((delivery) => this.#inHand.has(delivery))
  }

  /** Records that wait too long for this place go down the ladder; until they are stored there they stay undone here. */
  #sendOn(feed: Feed, records: readonly KafkaRecord[]): void {
    const { sendOn, clock } = this.#options
    const nowMs = clock.now()
    const byWait = Map.groupBy(records, (record) => rungFor(dueMsOf(record) - nowMs).waitMs)
    for (const [waitMs, own] of byWait) {
      const sending = sendOn(waitMs, own)
        .then(() => {
          for (const { offset } of own) feed.ledger.finish(offset)
          this.#committer.note(feed)
        })
        .catch((error) => {
          for (const record of own) feed.putBack(record)
          this.#failed(error)
        })
        .finally(() => {
          this.#sendingOn.delete(sending)
          this.#bell.ring()
        })
      this.#sendingOn.add(sending)
    }
  }
}
