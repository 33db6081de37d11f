/**
 * A right driver that can do little, made of the memory driver: deliveries belong to a connection that can break,
 * nothing is counted, extended, released, ordered or grouped. What its manifest denies it refuses, so the refusal cases
 * and the faults have a home.
 */
import {
  type Capabilities,
  type Delivery,
  type Driver,
  IdemqError,
  type OpenOptions,
  type QueueRef,
  type Receiver,
  type Settled,
} from '@idemq/core'

export function poorCapabilities({ maxBodyBytes }: Capabilities): Capabilities {
  return {
    durability: 'async',
    maxBodyBytes,
    maxBatch: 3,
    maxDelayMs: 900_000,
    delayGranularityMs: 50,
    returnsBy: 'connection',
    canExtend: false,
    counts: 'none',
    freeRelease: false,
    dedupesSends: false,
    fencedSettle: true,
    ordering: 'none',
    groups: false,
    deadScan: 'leased',
    push: false,
    stats: ['ready', 'dead'],
  }
}

const unsupported = (what: string): Settled => ({
  status: 'failed',
  error: new IdemqError('UNSUPPORTED', `the poor driver cannot ${what}`),
})

/** A delivery of the rich receiver, without what a connection cannot know. */
interface PlainDelivery extends Delivery {
  readonly rich: Delivery
}

export interface PoorBroker {
  readonly wrap: (driver: Driver) => Driver
  /** Breaks what the wrapped driver has open; it connects again by itself. */
  readonly sever: (wrapped: Driver) => Promise<void>
  /** The same for everybody. */
  readonly restart: () => Promise<void>
}

export function poorBroker(): PoorBroker {
  const connections = new Map<Driver, (() => Promise<void>)[]>()
  const sever = async (wrapped: Driver): Promise<void> => {
    for (const cut of connections.get(wrapped) ?? []) await cut()
  }
  return {
    wrap(driver) {
      const cuts: (() => Promise<void>)[] = []
      const wrapped = poorDriver(driver, cuts)
      connections.set(wrapped, cuts)
      return wrapped
    },
    sever,
    async restart() {
      for (const wrapped of connections.keys()) await sever(wrapped)
    },
  }
}

function poorDriver(driver: Driver, cuts: (() => Promise<void>)[]): Driver {
  let closed = false
  return {
    ...driver,
    name: 'poor',
    capabilities: poorCapabilities(driver.capabilities),
    send: ({ name }, batch, signal) =>
      driver.send(
        { name },
        batch.map((message) => ({ ...message, ordered: false })),
        signal,
      ),
    async open(queue, options, signal) {
      const { receiver, cut } = await poorReceiver(driver, queue, options, signal)
      cuts.push(async () => {
        if (!closed) await cut()
      })
      return receiver
    },
    async stats(queue, signal) {
      const { ready = 0, dead = 0 } = await driver.stats(queue, signal)
      return { ready, dead }
    },
    async close() {
      closed = true
      await driver.close()
    },
  }
}

async function poorReceiver(
  driver: Driver,
  queue: QueueRef,
  options: OpenOptions,
  signal: AbortSignal,
): Promise<{ receiver: Receiver; cut: () => Promise<void> }> {
  const connect = (): Promise<Receiver> => driver.open(queue, { ...options, leaseMs: 1e9 }, signal)
  let rich = await connect()
  const held = new Set<PlainDelivery>()
  const receiver: Receiver = {
    async receive(max, waitMs, abort) {
      const deliveries = await rich.receive(max, waitMs, abort)
      const plain = deliveries.map((one) => ({ body: one.body, holdUntilMs: Number.POSITIVE_INFINITY, rich: one }))
      for (const one of plain) held.add(one)
      return plain
    },
    async settle(batch, abort) {
      const acks = batch.filter(({ outcome }) => outcome === 'ack')
      for (const { delivery } of acks) held.delete(delivery as PlainDelivery)
      const answers = await rich.settle(
        acks.map(({ delivery, outcome }) => ({ delivery: (delivery as PlainDelivery).rich, outcome })),
        abort,
      )
      return batch.map(({ outcome }) => (outcome === 'ack' ? answers.shift()! : unsupported('release')))
    },
    extend: async (deliveries) => deliveries.map(() => unsupported('extend')),
    stop: () => rich.stop(),
    close: () => rich.close(),
  }
  const cut = async (): Promise<void> => {
    await rich.close()
    rich = await connect()
    options.onLost([...held])
    held.clear()
  }
  return { receiver, cut }
}
