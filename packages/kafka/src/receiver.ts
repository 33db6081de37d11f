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
  type Outcome,
  type Receiver,
  type Settled,
} from '@idemq/core'
import type { Assignment, Claim } from './assigner.ts'
import type { Connection, GroupTimeouts, KafkaRecord, TopicPartition } from './client.ts'
import { Committer } from './committer.ts'
import { rungFor } from './delays.ts'
import { Feed } from './feed.ts'
import { protocolError } from './kafka-error.ts'
import { Membership } from './membership.ts'
import { maxUndone } from './offset-metadata.ts'
import { aborted, unlessAborted } from './signals.ts'
import type { KafkaWarning } from './warning.ts'
import { dueMsOf, laneOf } from './wire.ts'

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
/** Longest wait of one fetch: a partition that comes to us meanwhile waits as long, and so does closing. */
const fetchWaitMs = 250
const partitionBytes = 256 * 1024

/** One start of one record. */
class HeldRecord implements Delivery {
  readonly feed: Feed
  readonly record: KafkaRecord
  readonly priorDeliveries: number
  readonly lane: string | undefined
  readonly #membership: Membership
  /** 'ended': done or given back, and perhaps not written down yet. */
  state: 'held' | 'ended' | 'written' = 'held'

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
  #feeds = new Map<string, Feed>()
  /** In hand. */
  readonly #held = new Set<HeldRecord>()
  /** Ended, and it is not known whether that is written. */
  readonly #unwritten = new Set<HeldRecord>()
  /** Ordering keys that are in hand. */
  readonly #lanes = new Set<string>()
  readonly #fetching = new Map<number, Promise<void>>()
  #loading: Promise<void> | undefined
  #forwarding = new Set<Promise<void>>()
  #turn = 0
  #trouble: unknown
  #stopped = false
  #leaving: Promise<void> | undefined
  #closing: Promise<void> | undefined

  constructor(options: ReceiverOptions) {
    this.#options = options
    const { connection, group, topics, clock } = options
    this.#bell = new Doorbell(clock)
    this.#membership = new Membership({
      ...options,
      topics: [...topics.keys()],
      claims: () => this.#claims(),
      isLeaving: () => this.#stopped,
      beforeJoin: (member) => this.#committer.handOver(member, [...new Set([...this.#held].map(({ feed }) => feed))]),
      onAssigned: (assignment) => this.#assigned(assignment),
      onExpelled: () => this.#lose([...this.#feeds.values()]),
    })
    this.#committer = new Committer(connection, group, this.#membership)
  }

  /** @throws IdemqError what repeating will not mend; anything else the next receive tries again */
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
    const message = `kafka: group '${group}' may have ${maxUnsettled} jobs in hand, its partitions allow ${most}: add partitions`
    onWarning({ code: 'IDEMQ_KAFKA_FEW_PARTITIONS', message })
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
      this.#fetchMore()
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

  async settle(batch: readonly { delivery: Delivery; outcome: Outcome }[], signal: AbortSignal): Promise<Settled[]> {
    const what = `settle in group '${this.#options.group}'`
    if (signal.aborted) throw aborted(signal, what)
    const mine = batch.map(({ delivery, outcome }) => this.#end(delivery as HeldRecord, outcome))
    try {
      await unlessAborted(this.#committer.flush(), signal, what)
    } finally {
      this.#bell.ring()
    }
    const answers = mine.map((delivery): Settled => {
      if (!delivery || delivery.feed.isLost) return lost
      delivery.state = 'written'
      this.#unwritten.delete(delivery)
      return settled
    })
    if (this.#stopped && this.#held.size === 0) void this.#leave()
    return answers
  }

  async extend(deliveries: readonly Delivery[], signal: AbortSignal): Promise<Settled[]> {
    if (signal.aborted) throw aborted(signal, `extend in group '${this.#options.group}'`)
    const nowMs = this.#options.clock.monotonicMs()
    return deliveries.map((delivery) => {
      const isHeld = this.#held.has(delivery as HeldRecord) && delivery.holdUntilMs > nowMs
      return isHeld ? settled : lost
    })
  }

  async stop(): Promise<void> {
    this.#stopped = true
    this.#bell.ring()
    for (const feed of this.#feeds.values()) feed.drop()
    if (this.#held.size === 0) await this.#leave()
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
    await Promise.allSettled([...this.#fetching.values(), ...this.#forwarding, this.#loading])
    await this.#options.connection.close().catch(() => {})
  }

  /** Gives all back and leaves the group. Out of reach, it goes back when the session ends. */
  #leave(): Promise<void> {
    this.#leaving ??= (async () => {
      await this.#committer.flush().catch(() => {})
      const { member } = this.#membership
      const feeds = [...this.#feeds.values()]
      if (member && this.#held.size > 0) await this.#committer.handOver(member, feeds)
      await this.#membership.leave().catch(() => {})
      for (const feed of feeds) feed.lose()
      this.#held.clear()
      this.#unwritten.clear()
    })()
    return this.#leaving
  }

  #claims(): Claim[] {
    const busy = new Map<number, number>()
    for (const { partition } of this.#feeds.values()) busy.set(partition, 0)
    for (const { feed } of this.#held) busy.set(feed.partition, (busy.get(feed.partition) ?? 0) + 1)
    return Array.from(busy, ([unit, count]) => ({ unit, busy: count }))
  }

  #assigned({ partitions, kept }: Assignment): void {
    const { topics } = this.#options
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
      const message = `kafka: group '${this.#options.group}' has more members than partitions: one of them has no work`
      this.#options.onWarning({ code: 'IDEMQ_KAFKA_FEW_PARTITIONS', message })
    }
    // What was handed over for the join is alive here again.
    for (const { feed } of this.#held) this.#committer.note(feed)
    if (this.#held.size > 0) this.#committer.flush().catch(() => {})
    this.#bell.ring()
  }

  #lose(feeds: readonly Feed[]): void {
    const gone = new Set(feeds)
    for (const feed of gone) {
      feed.lose()
      if (this.#feeds.get(keyOf(feed)) === feed) this.#feeds.delete(keyOf(feed))
    }
    const deliveries = [...this.#held, ...this.#unwritten].filter(({ feed }) => gone.has(feed))
    for (const delivery of deliveries) {
      this.#unwritten.delete(delivery)
      if (this.#held.has(delivery)) this.#drop(delivery)
    }
    if (deliveries.length > 0) this.#options.onLost(deliveries)
    this.#bell.ring()
  }

  #drop(delivery: HeldRecord): void {
    this.#held.delete(delivery)
    if (delivery.lane !== undefined) this.#lanes.delete(delivery.lane)
  }

  /** Joins again if the group went on without us, and loads what is new. What fails is thrown by the next receive. */
  #keepMembership(): void {
    const failed = (error: unknown): void => {
      this.#trouble = error
      this.#bell.ring()
    }
    if (!this.#membership.member && !this.#membership.isJoining) this.#membership.join().catch(failed)
    const fresh = [...this.#feeds.values()].filter((feed) => !feed.isLoaded)
    if (fresh.length === 0 || this.#loading || this.#membership.isJoining) return
    this.#loading = this.#load(fresh)
      .catch(failed)
      .finally(() => {
        this.#loading = undefined
        this.#bell.ring()
      })
  }

  async #load(feeds: readonly Feed[]): Promise<void> {
    const { connection, group } = this.#options
    const committed = new Map((await connection.committed(group, feeds)).map((each) => [keyOf(each), each]))
    const unknown = feeds.filter((feed) => (committed.get(keyOf(feed))?.offset ?? -1) < 0)
    const first = unknown.length > 0 ? await connection.offsets(unknown, 'first') : []
    const firstOf = new Map(first.map((each) => [keyOf(each), each.offset]))
    for (const feed of feeds) {
      const { offset = -1, metadata = '' } = committed.get(keyOf(feed)) ?? {}
      if (offset >= 0) feed.load(offset, metadata)
      else feed.load(firstOf.get(keyOf(feed)) ?? 0, '')
    }
  }

  /** Starts what may start, a partition after the other, each time beginning with another. */
  #start(max: number): { started: HeldRecord[]; nextMs: number } {
    const started: HeldRecord[] = []
    let nextMs = Number.POSITIVE_INFINITY
    if (this.#membership.isBetween || !this.#membership.member) return { started, nextMs }
    const wanted = Math.min(max, this.#options.maxUnsettled - this.#held.size)
    if (wanted <= 0) return { started, nextMs }
    const feeds = [...this.#feeds.values()]
    this.#turn++
    // Each its share first, then whoever has more.
    for (const share of [Math.ceil(wanted / Math.max(1, feeds.length)), wanted]) {
      for (let i = 0; i < feeds.length && started.length < wanted; i++) {
        const feed = feeds[(this.#turn + i) % feeds.length]!
        const look = feed.look(Math.min(share, wanted - started.length), this.#options.clock.now(), this.#lanes)
        nextMs = Math.min(nextMs, look.nextMs)
        for (const record of look.ready) started.push(this.#hold(feed, record))
        if (look.onward.length > 0) this.#sendOn(feed, look.onward)
      }
    }
    return { started, nextMs }
  }

  #hold(feed: Feed, record: KafkaRecord): HeldRecord {
    const delivery = new HeldRecord(feed, record, this.#membership)
    this.#held.add(delivery)
    if (delivery.lane !== undefined) this.#lanes.add(delivery.lane)
    this.#committer.note(feed)
    return delivery
  }

  /** Nothing is handed out before it is written that it starts: a crash from then on counts. */
  async #writeStarts(started: readonly HeldRecord[]): Promise<HeldRecord[]> {
    try {
      await this.#committer.flush()
    } catch (error) {
      for (const delivery of started) this.#giveBack(delivery)
      throw error
    }
    return started.filter(({ feed }) => !feed.isLost)
  }

  /** The delivery, if it was ours to end or was ended before and is not written down. */
  #end(delivery: HeldRecord, outcome: Outcome): HeldRecord | undefined {
    if (!(delivery instanceof HeldRecord) || delivery.feed.isLost) return undefined
    if (delivery.state !== 'held') return delivery.state === 'ended' ? delivery : undefined
    if (!this.#held.has(delivery)) return undefined
    this.#unwritten.add(delivery)
    if (outcome === 'release') this.#giveBack(delivery)
    else {
      delivery.state = 'ended'
      this.#drop(delivery)
      delivery.feed.ledger.finish(delivery.record.offset)
      this.#committer.note(delivery.feed)
    }
    return delivery
  }

  #giveBack(delivery: HeldRecord): void {
    delivery.state = 'ended'
    this.#drop(delivery)
    if (delivery.feed.isLost) return
    delivery.feed.ledger.giveBack(delivery.record.offset)
    if (!this.#stopped) delivery.feed.putBack(delivery.record)
    this.#committer.note(delivery.feed)
  }

  /** Records that wait too long for this place go down the ladder; until they are stored there they stay undone here. */
  #sendOn(feed: Feed, records: readonly KafkaRecord[]): void {
    const { sendOn, clock } = this.#options
    const byWait = new Map<number, KafkaRecord[]>()
    for (const record of records) {
      const { waitMs } = rungFor(dueMsOf(record) - clock.now())
      byWait.set(waitMs, [...(byWait.get(waitMs) ?? []), record])
    }
    for (const [waitMs, own] of byWait) {
      const sending = sendOn(waitMs, own).then(
        () => {
          if (feed.isLost) return
          for (const { offset } of own) feed.ledger.finish(offset)
          this.#committer.note(feed)
        },
        (error: unknown) => {
          for (const record of own) feed.putBack(record)
          this.#trouble = error
        },
      )
      const ended = sending.finally(() => {
        this.#forwarding.delete(ended)
        this.#bell.ring()
      })
      this.#forwarding.add(ended)
    }
  }

  /** One fetch at a time from each broker, for what there is room for. */
  #fetchMore(): void {
    const { connection } = this.#options
    if (!this.#membership.member) return
    const hungry = [...this.#feeds.values()].filter((feed) => feed.wantsMore)
    for (const [broker, feeds] of connection.byLeader(hungry)) {
      if (this.#fetching.has(broker)) continue
      const fetching = this.#fetch(broker, feeds)
        .catch((error: unknown) => {
          this.#trouble = error
        })
        .finally(() => {
          this.#fetching.delete(broker)
          this.#bell.ring()
        })
      this.#fetching.set(broker, fetching)
    }
  }

  async #fetch(broker: number, feeds: readonly Feed[]): Promise<void> {
    const { connection } = this.#options
    const asked = new Map(feeds.map((feed) => [keyOf(feed), feed]))
    const from = feeds.map(({ topic, partition, offset }) => ({ topic, partition, offset }))
    try {
      const fetched = await connection.fetch(broker, from, fetchWaitMs, partitionBytes)
      if (!this.#stopped) for (const each of fetched) asked.get(keyOf(each))?.append(each)
    } catch (error) {
      if (protocolError(error) !== 'OFFSET_OUT_OF_RANGE') throw error
      await this.#skipDeleted(feeds)
    }
  }

  /** The log no longer begins, or no longer reaches, where we are: go on at its first record, which skips nothing there is. */
  async #skipDeleted(feeds: readonly Feed[]): Promise<void> {
    const { connection, onWarning } = this.#options
    const [firsts, nexts] = await Promise.all([connection.offsets(feeds, 'first'), connection.offsets(feeds, 'next')])
    const nextOf = new Map(nexts.map((each) => [keyOf(each), each.offset]))
    for (const { topic, partition, offset: first } of firsts) {
      const feed = feeds.find((each) => each.topic === topic && each.partition === partition)
      if (!feed || feed.isLost || (feed.offset >= first && feed.offset <= nextOf.get(keyOf(feed))!)) continue
      const isTruncated = feed.offset > first
      const what = isTruncated ? 'lost the end of the log' : `deleted ${first - feed.offset} offsets that were not read`
      if (isTruncated) this.#beginAnew(feed, first)
      else feed.skipTo(first)
      const message = `kafka: the broker ${what} in ${topic}, partition ${partition}: look at retention.ms and replication`
      onWarning({ code: 'IDEMQ_KAFKA_DELETED', message })
    }
  }

  /** Offsets will be given again to other records: nothing we know of them holds. */
  #beginAnew(feed: Feed, offset: number): void {
    const anew = new Feed(feed, this.#options.topics.get(feed.topic) ?? 0)
    anew.load(offset, '')
    this.#lose([feed])
    this.#feeds.set(keyOf(anew), anew)
    this.#committer.note(anew)
  }
}

function keyOf({ topic, partition }: TopicPartition): string {
  return `${topic} ${partition}`
}
