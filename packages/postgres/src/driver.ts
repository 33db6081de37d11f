/** The broker in Postgres: maps the driver contract to moves of `messages.ts` and `lanes.ts`, each call one statement. */
import {
  type Capabilities,
  type Driver,
  IdemqError,
  type Outgoing,
  type QueueRef,
  type Receiver,
  type Sent,
} from '@idemq/core'
import { byStatement } from './bodies.ts'
import { type Database, isAnswerLost } from './database.ts'
import { bury, removeLetter, scanLetters } from './dead-letters.ts'
import { putOrdered } from './lanes.ts'
import { put, stats } from './messages.ts'
import { openReceiver } from './receiver.ts'
import type { Wakeups } from './wakeups.ts'

/** One queue as this process sees it. */
export interface Queue {
  readonly name: string
  readonly id: number
  /** Names its bell in {@link Wakeups}. */
  readonly topic: string
}

export const maxBatch = 1_000

export function postgresDriver(on: Database, wakeups: Wakeups, maxBodyBytes: number): Driver {
  const use = on.use('postgres driver')
  const { pollMs, where, schema } = on.options
  const queues = new Map<string, Queue>()
  const receivers = new Set<Receiver>()

  const capabilities: Capabilities = {
    durability: 'sync',
    maxBodyBytes,
    maxBatch,
    delayGranularityMs: pollMs,
    returnsBy: 'lease',
    canExtend: true,
    counts: 'every-delivery',
    freeRelease: true,
    dedupesSends: true,
    fencedSettle: true,
    ordering: 'first-attempts',
    groups: false,
    deadScan: 'random',
    push: false,
    stats: ['ready', 'delayed', 'inFlight', 'dead', 'oldestReadyAgeMs', 'oldestInFlightAgeMs', 'nextDueInMs'],
  }

  async function findQueue(name: string, signal: AbortSignal): Promise<Queue | undefined> {
    const database = use.database()
    const sql = `SELECT id FROM ${database.schema}.queue WHERE name = $1`
    const [row] = await database.run('look up a queue', sql, [name], signal)
    if (!row) return undefined
    const queue = { name, id: Number(row.id), topic: `queue ${name}` }
    queues.set(name, queue)
    return queue
  }

  /** @throws IdemqError QUEUE_MISSING */
  async function queueOf({ name }: { readonly name: string }, signal: AbortSignal): Promise<Queue> {
    use.database()
    const queue = queues.get(name) ?? (await findQueue(name, signal))
    if (queue) return queue
    const text = `postgres: no queue '${name}' in schema "${schema}", ${where}: declare it with { declare: 'create' }`
    throw new IdemqError('QUEUE_MISSING', text)
  }

  /** Stores what fits, in as few statements as it takes; what is too large fails alone. */
  async function store(
    batch: readonly Outgoing[],
    some: (messages: readonly Outgoing[]) => Promise<void>,
  ): Promise<Sent[]> {
    const fits = batch.filter(({ body }) => body.byteLength <= maxBodyBytes)
    let status: 'stored' | 'unknown' = 'stored'
    try {
      for (const messages of byStatement(fits)) await some(messages)
    } catch (error) {
      if (!isAnswerLost(error)) throw error
      status = 'unknown'
    }
    return batch.map((message) => (message.body.byteLength <= maxBodyBytes ? { status } : tooLarge(message)))
  }

  function tooLarge({ copyId, body }: Outgoing): Sent {
    const text = `postgres: copy ${copyId} has ${body.byteLength} bytes, the limit is ${maxBodyBytes}`
    return { status: 'failed', error: new IdemqError('BODY_TOO_LARGE', text) }
  }

  return {
    name: 'postgres',
    capabilities,

    async declare({ name }, mode, signal) {
      const database = use.database()
      await database.prepare(mode, signal)
      // Writes only where it must: a producer or worker may start while the server takes no writes.
      if (await findQueue(name, signal)) return
      if (mode === 'create') {
        const sql = `INSERT INTO ${database.schema}.queue (name) VALUES ($1) ON CONFLICT DO NOTHING`
        await database.run(`declare queue '${name}'`, sql, [name], signal)
      }
      await queueOf({ name }, signal)
    },

    async send(target, batch, signal) {
      const { id, topic } = await queueOf(target, signal)
      return store(batch, async (messages) => {
        const ordered = messages.filter((message) => message.ordered)
        if (ordered.length > 0) await putOrdered(on, id, ordered, signal)
        const others = ordered.length > 0 ? messages.filter((message) => !message.ordered) : messages
        const notification = others.length > 0 ? wakeups.announce(topic) : undefined
        if (others.length > 0) await put(on, id, others, notification, signal)
        wakeups.announced(topic, notification !== undefined)
      })
    },

    async sendDead(target, batch, signal) {
      const { id } = await queueOf(target, signal)
      return store(batch, (messages) => bury(on, id, messages, signal))
    },

    async open(target, options, signal) {
      const queue = await queueOf(target, signal)
      const receiver = openReceiver(use, wakeups, queue, options, () => receivers.delete(receiver))
      receivers.add(receiver)
      return receiver
    },

    async stats(target, signal) {
      const { id } = await queueOf(target, signal)
      return stats(on, id, signal)
    },

    async scanDead(target: QueueRef, visit, signal) {
      const { id } = await queueOf(target, signal)
      const letters = scanLetters(use, id, signal)
      for (;;) {
        const next = await letters.next().catch((error: unknown) => {
          if (signal.aborted) return undefined
          throw error
        })
        if (next?.done) return { complete: true }
        if (!next || signal.aborted) return { complete: false }
        const wish = await visit(next.value)
        if (wish === 'stop') return { complete: false }
        // Also where the signal aborted meanwhile: the visitor has made up its mind.
        if (wish === 'remove') await removeLetter(use, next.value.id)
      }
    },

    async close() {
      try {
        await Promise.all([...receivers].map((receiver) => receiver.close()))
      } finally {
        await use.close()
      }
    },
  }
}
