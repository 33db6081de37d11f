/** The broker in a SQLite file: maps the driver contract to moves of {@link messages}, each call one write. */
import {
  type Capabilities,
  type Delivery,
  Doorbell,
  type Driver,
  IdemqError,
  type OpenOptions,
  type Outgoing,
  type QueueRef,
  type Receiver,
  type Sent,
  type Settled,
} from '@idemq/core'
import type { Database, Use } from './database.ts'
import { ack, anyVisible, extend, type Fence, giveBack, put, stats, take } from './messages.ts'

interface HeldDelivery extends Delivery, Fence {
  holdUntilMs: number
}

/** One queue as this process sees it. */
interface Queue {
  readonly name: string
  readonly id: number
  /** Rung where this process made something receivable; what other processes do is found by looking every `pollMs`. */
  readonly bell: Doorbell
}

const maxBatch = 1_000
const settled: Settled = { status: 'settled' }
const lost: Settled = { status: 'lost' }
const never = new AbortController().signal

export function sqliteDriver(on: Database, maxBodyBytes: number): Driver {
  const use = on.use('sqlite driver')
  const { clock, pollMs, synchronous } = on.options
  const queues = new Map<string, Queue>()
  const receivers = new Set<Receiver>()

  const capabilities: Capabilities = {
    durability: synchronous === 'full' ? 'sync' : 'async',
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

  /** @throws IdemqError QUEUE_MISSING */
  function queueOf({ name }: { readonly name: string }): Queue {
    const database = use.database()
    const known = queues.get(name)
    if (known) return known
    const row = database.read('look up a queue', () => {
      return database.sql('SELECT id FROM idemq_queue WHERE name = ?').get(name) as { id: number } | undefined
    })
    if (!row) {
      const text = `sqlite: ${database.options.path} has no queue '${name}': declare it with { declare: 'create' }`
      throw new IdemqError('QUEUE_MISSING', text)
    }
    const queue = { name, id: row.id, bell: new Doorbell(clock) }
    queues.set(name, queue)
    return queue
  }

  /** Stores what fits, in one write; what is too large fails alone. */
  async function store(
    batch: readonly Outgoing[],
    what: string,
    signal: AbortSignal,
    one: (message: Outgoing, nowMs: number) => void,
  ): Promise<Sent[]> {
    const answers = batch.map((message) => sizeAnswer(message, maxBodyBytes))
    await use.database().write(what, signal, () => {
      const nowMs = on.now()
      for (const [i, message] of batch.entries()) if (answers[i]!.status === 'stored') one(message, nowMs)
    })
    return answers
  }

  return {
    name: 'sqlite',
    capabilities,

    async declare({ name }, mode, signal) {
      const database = use.database()
      await database.prepare(mode, signal)
      if (mode === 'create') {
        await database.write(`declare queue '${name}'`, signal, () => {
          database.sql('INSERT INTO idemq_queue (name) VALUES (?) ON CONFLICT DO NOTHING').run(name)
        })
      }
      queueOf({ name })
    },

    async send(target, batch, signal) {
      const { id, name, bell } = queueOf(target)
      const answers = await store(batch, `send to '${name}'`, signal, (message, nowMs) => put(on, id, message, nowMs))
      bell.ring()
      return answers
    },

    async sendDead(target, batch, signal) {
      const { id, name } = queueOf(target)
      return store(batch, `dead-letter in '${name}'`, signal, ({ copyId, body }) => {
        on.sql('INSERT INTO idemq_dead (queue, copy_id, body) VALUES (?, ?, ?) ON CONFLICT DO NOTHING').run(
          id,
          copyId,
          body,
        )
      })
    },

    async open(queue, options) {
      const receiver = openReceiver(use, queueOf(queue), options, () => receivers.delete(receiver))
      receivers.add(receiver)
      return receiver
    },

    async stats(queue) {
      const { id, name } = queueOf(queue)
      return on.read(`count '${name}'`, () => {
        const dead = on.sql('SELECT count(*) AS n FROM idemq_dead WHERE queue = ?').get(id) as { n: number }
        return { ...stats(on, id, on.now()), dead: dead.n }
      })
    },

    async scanDead(target: QueueRef, visit, signal) {
      const { id: queue, name } = queueOf(target)
      const letter = `SELECT id, body FROM idemq_dead WHERE queue = ? AND id > ? AND id <= ? ORDER BY id LIMIT 1`
      const what = `scan the dead letters of '${name}'`
      // What is dead-lettered during the scan, such as a replay that failed again, is not part of it.
      const last = on.read(what, () => {
        return on.sql('SELECT max(id) AS id FROM idemq_dead WHERE queue = ?').get(queue) as { id: number | null }
      })
      for (let seen = 0; ; ) {
        const row = on.read(what, () => {
          return use
            .database()
            .sql(letter)
            .get(queue, seen, last.id ?? 0) as { id: number; body: Uint8Array } | undefined
        })
        if (!row) return { complete: true }
        if (signal.aborted) return { complete: false }
        seen = row.id
        const wish = await visit({ id: String(row.id), body: row.body })
        if (wish === 'stop') return { complete: false }
        if (wish === 'remove') {
          // Also where the signal aborted meanwhile: the visitor has made up its mind.
          await use.database().write(`remove a dead letter of '${name}'`, never, () => {
            on.sql('DELETE FROM idemq_dead WHERE id = ?').run(row.id)
          })
        }
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

function sizeAnswer({ copyId, body }: Outgoing, maxBodyBytes: number): Sent {
  if (body.byteLength <= maxBodyBytes) return { status: 'stored' }
  const text = `sqlite: copy ${copyId} has ${body.byteLength} bytes, the limit is ${maxBodyBytes}`
  return { status: 'failed', error: new IdemqError('BODY_TOO_LARGE', text) }
}

function openReceiver(use: Use, queue: Queue, options: OpenOptions, onClose: () => void): Receiver {
  const { clock, pollMs } = use.database().options
  const { maxUnsettled, leaseMs } = options
  /** Leases are equally long and an extended delivery moves to the end, so the first expires first. */
  const held = new Set<HeldDelivery>()
  /** Room kept for receives under way. */
  let reserved = 0
  let stopped = false
  let closed = false

  function room(): number {
    for (const first of held) {
      if (first.holdUntilMs > clock.monotonicMs()) break
      held.delete(first)
    }
    return maxUnsettled - held.size - reserved
  }

  /** Looking takes no lock and writes nothing, so an idle queue costs next to nothing. */
  function anything(): boolean {
    const database = use.database()
    return database.read(`receive from '${queue.name}'`, () => anyVisible(database, queue.id, database.now()))
  }

  async function takeSome(max: number, signal: AbortSignal): Promise<Delivery[]> {
    const database = use.database()
    reserved += max
    try {
      const deliveries = await database.write(`receive from '${queue.name}'`, signal, (): HeldDelivery[] => {
        if (stopped) return []
        const holdUntilMs = clock.monotonicMs() + leaseMs
        return take(database, queue.id, max, database.now(), leaseMs).map((taken) => ({ ...taken, holdUntilMs }))
      })
      for (const delivery of deliveries) held.add(delivery)
      if (!closed) return deliveries
    } catch (error) {
      // Aborted before it ran: nothing was taken.
      if (signal.aborted) return []
      throw error
    } finally {
      reserved -= max
    }
    await giveAllBack()
    return []
  }

  async function giveAllBack(): Promise<void> {
    const unsettled = [...held]
    held.clear()
    if (unsettled.length === 0) return
    const database = use.database()
    await database.write(`give back to '${queue.name}'`, never, () => {
      for (const fence of unsettled) giveBack(database, fence, false)
    })
    queue.bell.ring()
  }

  return {
    async receive(max, waitMs, signal) {
      const untilMs = clock.monotonicMs() + waitMs
      for (;;) {
        if (stopped || signal.aborted) return []
        const seen = queue.bell.armed()
        const wanted = Math.min(max, maxBatch, room())
        if (wanted > 0 && anything()) {
          const deliveries = await takeSome(wanted, signal)
          if (deliveries.length > 0) return deliveries
        }
        const leftMs = untilMs - clock.monotonicMs()
        if (leftMs <= 0) return []
        await queue.bell.wait(Math.min(leftMs, pollMs), seen, signal)
      }
    },

    async settle(batch, signal) {
      const database = use.database()
      const answers = await database.write(`settle in '${queue.name}'`, signal, () => {
        const nowMs = database.now()
        return batch.map(({ delivery, outcome }) => {
          const fence = delivery as HeldDelivery
          return outcome === 'ack' ? ack(database, queue.id, fence, nowMs) : giveBack(database, fence, true)
        })
      })
      for (const { delivery } of batch) held.delete(delivery as HeldDelivery)
      // Room again, a released copy, or the next of an ordering key.
      queue.bell.ring()
      return answers.map((took) => (took ? settled : lost))
    },

    async extend(deliveries, signal) {
      const database = use.database()
      const { answers, holdUntilMs } = await database.write(`extend leases in '${queue.name}'`, signal, () => {
        const nowMs = database.now()
        return {
          holdUntilMs: clock.monotonicMs() + leaseMs,
          answers: deliveries.map((delivery) => extend(database, delivery as HeldDelivery, nowMs, leaseMs)),
        }
      })
      return answers.map((took, i) => {
        const delivery = deliveries[i] as HeldDelivery
        held.delete(delivery)
        if (!took) return lost
        delivery.holdUntilMs = holdUntilMs
        held.add(delivery)
        return settled
      })
    },

    async stop() {
      stopped = true
      queue.bell.ring()
    },

    async close() {
      if (closed) return
      stopped = true
      closed = true
      queue.bell.ring()
      onClose()
      await giveAllBack()
    },
  }
}
