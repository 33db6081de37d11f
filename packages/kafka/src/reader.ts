import type { Connection, TopicPartition } from './client.ts'
import type { Feed } from './feed.ts'
import { protocolError } from './kafka-error.ts'
import type { KafkaWarning } from './warning.ts'

export interface ReaderOptions {
  readonly connection: Connection
  readonly onWarning: (warning: KafkaWarning) => void
  readonly onTrouble: (error: unknown) => void
  /** The broker lost the end of the log: from `offset` on there is something else, or nothing yet. */
  readonly onTruncated: (feed: Feed, offset: number) => void
  /** Something was read, or failed to be. */
  readonly onChange: () => void
}

/** Longest wait of one fetch: a partition that comes to us meanwhile waits as long, and so does closing. */
const fetchWaitMs = 250
const partitionBytes = 256 * 1024

/** Reads ahead: one fetch at a time from each broker, for those of its partitions that have room. */
export class Reader {
  readonly #options: ReaderOptions
  readonly #fetching = new Map<number, Promise<void>>()
  #stopped = false

  constructor(options: ReaderOptions) {
    this.#options = options
  }

  readMore(feeds: Iterable<Feed>): void {
    const { connection, onTrouble, onChange } = this.#options
    const hungry = [...feeds].filter((feed) => feed.wantsMore)
    for (const [broker, led] of connection.byLeader(hungry)) {
      if (this.#fetching.has(broker)) continue
      const fetching = this.#fetch(broker, led)
        .catch(onTrouble)
        .finally(() => {
          this.#fetching.delete(broker)
          onChange()
        })
      this.#fetching.set(broker, fetching)
    }
  }

  /** Nothing more is read. Resolves once nothing is under way. */
  async stop(): Promise<void> {
    this.#stopped = true
    await Promise.all(this.#fetching.values())
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
      await this.#findPlace(asked)
    }
  }

  /** The log no longer begins, or no longer reaches, where we are: go on at its first record, which skips none there is. */
  async #findPlace(feeds: ReadonlyMap<string, Feed>): Promise<void> {
    const { connection, onWarning, onTruncated } = this.#options
    const partitions = [...feeds.values()]
    const nexts = await connection.offsets(partitions, 'next')
    const nextOf = new Map(nexts.map((each) => [keyOf(each), each.offset]))
    for (const each of await connection.offsets(partitions, 'first')) {
      const feed = feeds.get(keyOf(each))
      const next = nextOf.get(keyOf(each)) ?? 0
      if (!feed || feed.isLost || (feed.offset >= each.offset && feed.offset <= next)) continue
      const isTruncated = feed.offset > next
      const what = isTruncated ? 'lost the end of the log' : `deleted ${each.offset - feed.offset} offsets unread`
      if (isTruncated) onTruncated(feed, each.offset)
      else feed.skipTo(each.offset)
      const message = `kafka: the broker ${what} in ${keyOf(each)}: look at retention.ms and at replication`
      onWarning({ code: 'IDEMQ_KAFKA_DELETED', message })
    }
  }
}

/** Loads what the group committed. One that was never here begins at the first record there is. */
export async function loadFeeds(connection: Connection, group: string, feeds: readonly Feed[]): Promise<void> {
  const committed = await connection.committed(group, feeds)
  const known = new Map(committed.filter(({ offset }) => offset >= 0).map((each) => [keyOf(each), each]))
  const fresh = feeds.filter((feed) => !known.has(keyOf(feed)))
  const first = fresh.length > 0 ? await connection.offsets(fresh, 'first') : []
  for (const each of first) known.set(keyOf(each), { ...each, metadata: '' })
  for (const feed of feeds) {
    const { offset, metadata } = known.get(keyOf(feed))!
    feed.load(offset, metadata)
  }
}

/** Names a partition in maps and messages. */
export function keyOf({ topic, partition }: TopicPartition): string {
  return `${topic}/${partition}`
}
