/** Drivers that are wrong in one way each, and the worker part that shows in the order of a driver's calls. */
import type { Adapter, Delivery, Driver, Outgoing, Receiver, Sent, Settled } from '@idemq/core'
import { bound, readBody } from './tap.ts'

const stored = { status: 'stored' } as const
const settled: Settled = { status: 'settled' }
const forever = Number.MAX_SAFE_INTEGER

function withDriver(adapter: Adapter, change: (driver: Driver) => Partial<Driver>): Adapter {
  return { ...adapter, driver: { ...bound(adapter.driver), ...change(adapter.driver) } }
}

function withReceiver(adapter: Adapter, change: (receiver: Receiver) => Partial<Receiver>): Adapter {
  return withDriver(adapter, (driver) => ({
    async open(queue, options, signal) {
      const receiver = await driver.open(queue, options, signal)
      return { ...bound(receiver), ...change(receiver) }
    },
  }))
}

export function ackFirst(adapter: Adapter): Adapter {
  return withReceiver(adapter, (receiver) => ({
    async receive(max, waitMs, signal) {
      const deliveries = await receiver.receive(max, waitMs, signal)
      await receiver.settle(
        deliveries.map((delivery) => ({ delivery, outcome: 'ack' })),
        new AbortController().signal,
      )
      return deliveries.map((delivery) => ({ ...delivery, holdUntilMs: forever }))
    },
    settle: async (batch) => batch.map(() => settled),
    extend: async (batch) => batch.map(() => settled),
  }))
}

export function sendUnconfirmed(adapter: Adapter): Adapter {
  return withDriver(adapter, (driver) => ({
    async send(target, batch) {
      setTimeout(() => void driver.send(target, batch, new AbortController().signal), 150)
      return batch.map(() => stored)
    },
  }))
}

export function unknownIsStored(adapter: Adapter): Adapter {
  const believe = (sent: readonly Sent[]): Sent[] => sent.map((each) => (each.status === 'unknown' ? stored : each))
  return withDriver(adapter, (driver) => ({
    send: async (target, batch, signal) => believe(await driver.send(target, batch, signal)),
    sendDead: async (queue, batch, signal) => believe(await driver.sendDead(queue, batch, signal)),
  }))
}

/** Sends those of `batch` that are not `held`, and answers "stored" for the rest. */
async function sendUnless(
  held: (message: Outgoing) => boolean,
  driver: Driver,
  ...[target, batch, signal]: Parameters<Driver['send']>
): Promise<Sent[]> {
  const rest = batch.filter((message) => !held(message))
  const sent = rest.length === 0 ? [] : await driver.send(target, rest, signal)
  return batch.map((message) => (held(message) ? stored : sent[rest.indexOf(message)]!))
}

export function jobIdDedupe(adapter: Adapter): Adapter {
  const isRetry = (message: Outgoing): boolean => (readBody(adapter.driver.codec, message.body)?.attempt ?? 1) > 1
  return withDriver(adapter, (driver) => ({
    send: (target, batch, signal) => sendUnless(isRetry, driver, target, batch, signal),
  }))
}

export function delayDropped(adapter: Adapter): Adapter {
  return withDriver(adapter, (driver) => ({
    send: (target, batch, signal) =>
      driver.send(
        target,
        batch.map((message) => ({ ...message, delayMs: 0 })),
        signal,
      ),
  }))
}

export function settleIgnoresOwner(adapter: Adapter): Adapter {
  // What core keeps is a copy without an end; the driver goes on knowing its own.
  const originals = new WeakMap<Delivery, Delivery>()
  const original = (delivery: Delivery): Delivery => originals.get(delivery)!
  return withReceiver(adapter, (receiver) => ({
    async receive(max, waitMs, signal) {
      const deliveries = await receiver.receive(max, waitMs, signal)
      return deliveries.map((delivery) => {
        const copy = { ...delivery, holdUntilMs: forever }
        originals.set(copy, delivery)
        return copy
      })
    },
    async settle(batch, signal) {
      const real = batch.map(({ delivery, outcome }) => ({ delivery: original(delivery), outcome }))
      const answers = await receiver.settle(real, signal)
      return answers.map((answer) => (answer.status === 'lost' ? settled : answer))
    },
    async extend(batch, signal) {
      const answers = await receiver.extend(batch.map(original), signal)
      return answers.map((answer) => (answer.status === 'lost' ? settled : answer))
    },
  }))
}

export function deadWithoutFailures(adapter: Adapter): Adapter {
  return withDriver(adapter, (driver) => ({
    sendDead(queue, batch, signal) {
      const bare = batch.map((message) => {
        const envelope = readBody(driver.codec, message.body)
        if (!envelope) return message
        const { failures: _, ...rest } = envelope
        return { ...message, body: driver.codec?.encode(rest) ?? Buffer.from(JSON.stringify(rest)) }
      })
      return driver.sendDead(queue, bare, signal)
    },
  }))
}

export function deadDropped(adapter: Adapter): Adapter {
  return withDriver(adapter, () => ({ sendDead: async (_queue, batch) => batch.map(() => stored) }))
}

export function scanRemovesFirst(adapter: Adapter): Adapter {
  return withDriver(adapter, (driver) => ({
    async scanDead(queue, visit, signal) {
      const taken: { id: string; body: Uint8Array }[] = []
      const scan = await driver.scanDead(
        queue,
        async (letter) => {
          taken.push(letter)
          return 'remove'
        },
        signal,
      )
      for (const letter of taken) {
        if ((await visit(letter)) === 'remove') continue
        const { id, body } = letter
        const kept = { copyId: `kept.${id}`, jobId: id, body, partitionKey: id, ordered: false, delayMs: 0 }
        await driver.sendDead(queue, [kept], signal)
      }
      return scan
    },
  }))
}

export function releaseBeforeCopy(adapter: Adapter): Adapter {
  const late: (() => Promise<unknown>)[] = []
  const flush = async (): Promise<void> => {
    for (const send of late.splice(0)) await send()
  }
  const isRetry = (message: Outgoing): boolean => (readBody(adapter.driver.codec, message.body)?.attempt ?? 1) > 1
  const copiesLate = withDriver(adapter, (driver) => ({
    async send(target, batch, signal) {
      const copies = batch.filter(isRetry)
      if (copies.length > 0) late.push(() => driver.send(target, copies, new AbortController().signal))
      return sendUnless(isRetry, driver, target, batch, signal)
    },
  }))
  return withReceiver(copiesLate, (receiver) => ({
    async settle(batch, signal) {
      await flush()
      return receiver.settle(batch, signal)
    },
  }))
}
