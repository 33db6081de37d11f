/**
 * A right driver that can do little, made of the memory driver: deliveries belong to a connection, nothing is counted,
 * extended, released, ordered or grouped. What its manifest denies it refuses, so the refusal cases have a home.
 */
import { type Capabilities, type Delivery, type Driver, IdemqError, type Receiver, type Settled } from '@idemq/core'

export function poorCapabilities({ durability, maxBodyBytes }: Capabilities): Capabilities {
  return {
    durability,
    maxBodyBytes,
    maxBatch: 3,
    maxDelayMs: 900_000,
    delayGranularityMs: 50,
    returnsBy: 'connection',
    canExtend: false,
    counts: 'none',
    freeRelease: false,
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

/** What it is given by the rich receiver, without what a connection cannot know. */
interface PlainDelivery extends Delivery {
  readonly rich: Delivery
}

function poorReceiver(receiver: Receiver): Receiver {
  return {
    ...receiver,
    async receive(max, waitMs, signal) {
      const deliveries = await receiver.receive(max, waitMs, signal)
      return deliveries.map((rich): PlainDelivery => ({ body: rich.body, holdUntilMs: Number.POSITIVE_INFINITY, rich }))
    },
    async settle(batch, signal) {
      const acks = batch.filter(({ outcome }) => outcome === 'ack')
      const plain = acks.map(({ delivery, outcome }) => ({ delivery: (delivery as PlainDelivery).rich, outcome }))
      const answers = await receiver.settle(plain, signal)
      return batch.map(({ outcome }) => (outcome === 'ack' ? answers.shift()! : unsupported('release')))
    },
    extend: async (deliveries) => deliveries.map(() => unsupported('extend')),
  }
}

export function poorDriver(driver: Driver): Driver {
  const capabilities = poorCapabilities(driver.capabilities)
  return {
    ...driver,
    name: 'poor',
    capabilities,
    send: ({ name }, batch, signal) =>
      driver.send(
        { name },
        batch.map((message) => ({ ...message, ordered: false })),
        signal,
      ),
    open: async (queue, options, signal) =>
      poorReceiver(await driver.open(queue, { ...options, leaseMs: 1e9 }, signal)),
    async stats(queue, signal) {
      const { ready = 0, dead = 0 } = await driver.stats(queue, signal)
      return { ready, dead }
    },
  }
}
