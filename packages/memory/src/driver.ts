/**
 * A broker in memory, and the adapter to read first: the driver's part is thin, as it is for every broker. It maps
 * calls of the contract to moves of the broker ({@link GroupQueue}, which a real broker has on its own side) and
 * answers for each message of a batch. Retries, timeouts, batching and logging are core's.
 */
import {
  type Capabilities,
  type Clock,
  type Driver,
  IdemqError,
  type OpenOptions,
  type Outgoing,
  type QueueRef,
  type Receiver,
  type Sent,
  type Settled,
} from '@idemq/core'
import { GroupQueue } from './queue.ts'

/** The server side: queues by name, each with a copy of its messages for every group. Any number of drivers share it. */
export interface MemoryBroker {
  readonly clock: Clock
  readonly queues: Map<string, Topic>
}

interface Topic {
  readonly groups: Map<string, GroupQueue>
  /** What was sent before any group existed. The first group takes it over. */
  backlog: GroupQueue | undefined
}

export function memoryBroker(clock: Clock): MemoryBroker {
  return { clock, queues: new Map() }
}

const settled: Settled = { status: 'settled' }
const lost: Settled = { status: 'lost' }
const stored: Sent = { status: 'stored' }

const missing = (what: string): IdemqError =>
  new IdemqError('QUEUE_MISSING', `memory: ${what} does not exist: declare it with { declare: 'create' }`)

export function memoryDriver(broker: MemoryBroker, maxBodyBytes: number): Driver {
  const receivers = new Set<Receiver>()
  let closed = false

  const capabilities: Capabilities = {
    durability: 'memory',
    maxBodyBytes,
    maxBatch: 1_000,
    delayGranularityMs: 1,
    returnsBy: 'lease',
    canExtend: true,
    counts: 'every-delivery',
    freeRelease: true,
    dedupesSends: true,
    fencedSettle: true,
    ordering: 'first-attempts',
    groups: true,
    deadScan: 'random',
    push: false,
    stats: ['ready', 'delayed', 'inFlight', 'dead', 'oldestReadyAgeMs', 'oldestInFlightAgeMs', 'nextDueInMs'],
  }

  function refuseClosed(): void {
    if (closed) throw new IdemqError('CLOSED', 'the memory driver is closed')
  }

  function topic(name: string): Topic {
    const existing = broker.queues.get(name)
    if (existing) return existing
    const made: Topic = { groups: new Map(), backlog: new GroupQueue(broker.clock) }
    broker.queues.set(name, made)
    return made
  }

  function createGroup(name: string, group: string): GroupQueue {
    const { groups, backlog } = topic(name)
    const existing = groups.get(group)
    if (existing) return existing
    const made = backlog ?? new GroupQueue(broker.clock)
    groups.set(group, made)
    topic(name).backlog = undefined
    return made
  }

  function groupOf({ name, group }: QueueRef): GroupQueue {
    refuseClosed()
    const found = broker.queues.get(name)?.groups.get(group)
    if (!found) throw missing(`queue '${name}', group '${group}'`)
    return found
  }

  /** For looking only: what a group that nobody declared would find. */
  function seen({ name, group }: QueueRef): GroupQueue {
    refuseClosed()
    const found = broker.queues.get(name)
    if (!found) throw missing(`queue '${name}'`)
    return found.groups.get(group) ?? found.backlog ?? new GroupQueue(broker.clock)
  }

  /** Answers for each message: too large ones fail alone, the others go to `store`. */
  function each(batch: readonly Outgoing[], store: (message: Outgoing) => void): Sent[] {
    return batch.map((message) => {
      if (message.body.byteLength > maxBodyBytes) {
        const text = `memory: copy ${message.copyId} has ${message.body.byteLength} bytes, the limit is ${maxBodyBytes}`
        return { status: 'failed', error: new IdemqError('BODY_TOO_LARGE', text) }
      }
      store(message)
      return stored
    })
  }

  return {
    name: 'memory',
    capabilities,

    async declare({ name, group }, mode) {
      refuseClosed()
      if (mode === 'create') {
        if (group === undefined) topic(name)
        else createGroup(name, group)
      } else if (group !== undefined) groupOf({ name, group })
      else if (!broker.queues.has(name)) throw missing(`queue '${name}'`)
    },

    async send({ name, group }, batch) {
      refuseClosed()
      const { groups, backlog } = topic(name)
      const targets = group === undefined ? (backlog ? [backlog] : [...groups.values()]) : [createGroup(name, group)]
      const answers = each(batch, (message) => {
        for (const target of targets) target.put(message)
      })
      for (const target of targets) target.bell.ring()
      return answers
    },

    async sendDead(queue, batch) {
      const { dead } = groupOf(queue)
      return each(batch, ({ copyId, body }) => {
        if (!dead.has(copyId)) dead.set(copyId, body)
      })
    },

    async open(queue, options) {
      const receiver = openReceiver(broker.clock, groupOf(queue), options, () => receivers.delete(receiver))
      receivers.add(receiver)
      return receiver
    },

    async stats(queue) {
      return seen(queue).stats()
    },

    async scanDead(queue, visit, signal) {
      const { dead } = seen(queue)
      // A copy of the ids: what is dead-lettered during the scan (a replay that fails again) is not part of it.
      for (const id of [...dead.keys()]) {
        const body = dead.get(id)
        if (!body) continue
        if (signal.aborted) return { complete: false }
        const wish = await visit({ id, body })
        if (wish === 'stop') return { complete: false }
        if (wish === 'remove') dead.delete(id)
      }
      return { complete: true }
    },

    async close() {
      closed = true
      for (const receiver of [...receivers]) await receiver.close()
    },
  }
}

function openReceiver(clock: Clock, queue: GroupQueue, options: OpenOptions, onClose: () => void): Receiver {
  const holder = queue.addHolder(options.leaseMs)
  let stopped = false
  const room = (): number => options.maxUnsettled - holder.held.length

  return {
    async receive(max, waitMs, signal) {
      const untilMs = clock.monotonicMs() + waitMs
      for (;;) {
        if (stopped || signal.aborted) return []
        // Armed before looking: what arrives between the look and the wait is not missed.
        const seen = queue.bell.armed()
        queue.catchUp()
        const deliveries = queue.take(holder, Math.min(max, room()))
        const leftMs = untilMs - clock.monotonicMs()
        if (deliveries.length > 0 || leftMs <= 0) return deliveries
        await queue.bell.wait(Math.min(leftMs, queue.nextChangeMs() - clock.monotonicMs()), seen, signal)
      }
    },

    async settle(batch) {
      const answers: Settled[] = new Array(batch.length)
      // From the end, so that released messages, each put first, keep their order.
      for (let i = batch.length - 1; i >= 0; i--) {
        answers[i] = queue.settle(batch[i]!.delivery, batch[i]!.outcome) ? settled : lost
      }
      queue.bell.ring()
      return answers
    },

    async extend(deliveries) {
      return deliveries.map((delivery) => (queue.extend(delivery) ? settled : lost))
    },

    async stop() {
      stopped = true
      queue.bell.ring()
    },

    async close() {
      stopped = true
      queue.removeHolder(holder)
      onClose()
    },
  }
}
