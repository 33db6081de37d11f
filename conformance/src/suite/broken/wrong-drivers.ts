/** Drivers that are wrong in one way each, as small as a wrapper can be, and the case that must catch each. */
import type { Delivery, Driver, OpenOptions, Outgoing, Receiver } from '@idemq/core'

export interface WrongDriver {
  /** What is wrong with it. */
  readonly fault: string
  /** The case that must fail because of it. */
  readonly caughtBy: string
  /** Called once for a broker; its result wraps each connection to it. */
  readonly make: () => (driver: Driver) => Driver
}

const changeReceiver =
  (change: (receiver: Receiver, options: OpenOptions) => Partial<Receiver>) =>
  (driver: Driver): Driver => ({
    ...driver,
    async open(queue, options, signal) {
      const receiver = await driver.open(queue, options, signal)
      return { ...receiver, ...change(receiver, options) }
    },
  })

const changeMessages =
  (change: (message: Outgoing) => Outgoing) =>
  (driver: Driver): Driver => ({
    ...driver,
    send: (target, batch, signal) => driver.send(target, batch.map(change), signal),
    sendDead: (queue, batch, signal) => driver.sendDead(queue, batch.map(change), signal),
  })

const keyOf = (delivery: Delivery): string => Buffer.from(delivery.body).toString('latin1')

export const wrongDrivers: readonly WrongDriver[] = [
  {
    fault: 'settle ignores who owns the delivery',
    caughtBy: "a settle or extend by who lost the delivery is 'lost' and leaves it with its new holder",
    make: () => {
      const latest = new Map<string, Delivery>()
      return changeReceiver((receiver) => ({
        async receive(max, waitMs, signal) {
          const deliveries = await receiver.receive(max, waitMs, signal)
          for (const delivery of deliveries) latest.set(keyOf(delivery), delivery)
          return deliveries
        },
        settle: (batch, signal) =>
          receiver.settle(
            batch.map(({ delivery, outcome }) => ({ delivery: latest.get(keyOf(delivery)) ?? delivery, outcome })),
            signal,
          ),
      }))
    },
  },
  {
    fault: "settle answers 'settled' whatever happened",
    caughtBy: "settling again is 'lost' and harms nobody, whatever the outcome asked for",
    make: () =>
      changeReceiver((receiver) => ({
        async settle(batch, signal) {
          return (await receiver.settle(batch, signal)).map(() => ({ status: 'settled' }))
        },
      })),
  },
  {
    fault: 'acks are answered and not done',
    caughtBy: 'what was acked never comes back, not even when its holder dies',
    make: () => changeReceiver(() => ({ settle: async (batch) => batch.map(() => ({ status: 'settled' })) })),
  },
  {
    fault: 'answers of settle come in another order',
    caughtBy: 'answers come in the order of the batch, each for its own delivery',
    make: () =>
      changeReceiver((receiver) => ({
        settle: async (batch, signal) => (await receiver.settle(batch, signal)).reverse(),
      })),
  },
  {
    fault: 'the delay is dropped',
    caughtBy: 'a delayed copy is never early and late by no more than delayGranularityMs',
    make: () => changeMessages((message) => ({ ...message, delayMs: 0 })),
  },
  {
    fault: 'delayed copies come a fifth early',
    caughtBy: 'a delayed copy is never early and late by no more than delayGranularityMs',
    make: () => changeMessages((message) => ({ ...message, delayMs: message.delayMs * 0.8 })),
  },
  {
    fault: 'the longest delays overflow a timer and end at once',
    caughtBy: 'the longest delay is taken and waits (60 days where there is no limit)',
    make: () =>
      changeMessages((message) => ({ ...message, delayMs: message.delayMs > 2 ** 31 - 1 ? 1 : message.delayMs })),
  },
  {
    fault: 'send does not dedupe by copyId',
    caughtBy: 'a second send of a copyId that is ready counts as stored and changes nothing',
    make: () => {
      let sends = 0
      return changeMessages((message) => ({ ...message, copyId: `${message.copyId}-${++sends}` }))
    },
  },
  {
    fault: 'send dedupes by job id, so a retry is swallowed',
    caughtBy: 'another copy of the same job is not swallowed',
    make: () => changeMessages((message) => ({ ...message, copyId: message.jobId })),
  },
  {
    fault: 'a message that is too large is dropped and answered as stored',
    caughtBy: 'a message above maxBodyBytes fails alone with BODY_TOO_LARGE',
    make: () => (driver) => ({
      ...driver,
      send: async (target, batch, signal) =>
        (await driver.send(target, batch, signal)).map(() => ({ status: 'stored' as const })),
    }),
  },
  {
    fault: 'bodies travel as UTF-8 text',
    caughtBy: 'bytes arrive as they were sent: empty, NUL, not UTF-8, what looks like text',
    make: () => changeMessages((message) => ({ ...message, body: Buffer.from(Buffer.from(message.body).toString()) })),
  },
  {
    fault: 'queue names are folded to lower case',
    caughtBy: 'queues are apart whatever allowed characters their names differ in',
    make: () => (driver) => ({
      ...driver,
      declare: (queue, mode, signal) => driver.declare({ ...queue, name: queue.name.toLowerCase() }, mode, signal),
      send: (target, batch, signal) => driver.send({ ...target, name: target.name.toLowerCase() }, batch, signal),
      open: (queue, options, signal) => driver.open({ ...queue, name: queue.name.toLowerCase() }, options, signal),
    }),
  },
  {
    fault: "'check' creates what is missing",
    caughtBy: "declare 'check' refuses a missing queue with QUEUE_MISSING and creates nothing",
    make: () => (driver) => ({ ...driver, declare: (queue, _, signal) => driver.declare(queue, 'create', signal) }),
  },
  {
    fault: 'the count of deliveries is never raised',
    caughtBy: 'a first delivery has priorDeliveries 0, and each death of a holder adds one',
    make: () =>
      changeReceiver((receiver) => ({
        async receive(max, waitMs, signal) {
          const deliveries = await receiver.receive(max, waitMs, signal)
          for (const delivery of deliveries) Object.assign(delivery, { priorDeliveries: 0 })
          return deliveries
        },
      })),
  },
  {
    fault: 'a release raises the count',
    caughtBy: 'a release raises no count, however often',
    make: () => {
      const releases = new Map<string, number>()
      return changeReceiver((receiver) => ({
        async receive(max, waitMs, signal) {
          const deliveries = await receiver.receive(max, waitMs, signal)
          for (const delivery of deliveries) {
            const priorDeliveries = (delivery.priorDeliveries ?? 0) + (releases.get(keyOf(delivery)) ?? 0)
            Object.assign(delivery, { priorDeliveries })
          }
          return deliveries
        },
        settle(batch, signal) {
          for (const { delivery, outcome } of batch) {
            const key = keyOf(delivery)
            if (outcome === 'release') releases.set(key, (releases.get(key) ?? 0) + 1)
          }
          return receiver.settle(batch, signal)
        },
      }))
    },
  },
  {
    fault: 'stop leaves its buffer held',
    caughtBy: 'stop ends delivery, gives the buffer to others, and what is in hand can still be settled',
    make: () =>
      changeReceiver((receiver, { maxUnsettled }) => {
        const buffer: Delivery[] = []
        return {
          async receive(max, waitMs, signal) {
            if (buffer.length === 0) buffer.push(...(await receiver.receive(maxUnsettled, waitMs, signal)))
            return buffer.splice(0, max)
          },
          async stop() {
            buffer.length = 0
            await receiver.stop()
          },
        }
      }),
  },
  {
    fault: 'more than maxUnsettled is fetched',
    caughtBy: 'unsettled deliveries never exceed maxUnsettled, and settling makes room',
    make: () => (driver) => ({
      ...driver,
      open: (queue, options, signal) =>
        driver.open(queue, { ...options, maxUnsettled: options.maxUnsettled * 2 }, signal),
    }),
  },
  {
    fault: 'an aborted receive forgets what it takes afterwards',
    caughtBy: 'aborting a receive strands nothing',
    make: () =>
      changeReceiver((receiver) => ({
        receive(max, waitMs, signal) {
          const receiving = receiver.receive(max, waitMs, new AbortController().signal)
          const aborted = new Promise<Delivery[]>((resolve) => signal.addEventListener('abort', () => resolve([])))
          return Promise.race([receiving, aborted])
        },
      })),
  },
  {
    fault: 'receive polls by returning at once',
    caughtBy: 'an empty receive ends after about waitMs, neither at once nor late',
    make: () => changeReceiver((receiver) => ({ receive: (max, _, signal) => receiver.receive(max, 0, signal) })),
  },
  {
    fault: 'extend answers and does nothing',
    caughtBy: 'extend keeps the message from others, and without it the message goes to them',
    make: () => changeReceiver(() => ({ extend: async (deliveries) => deliveries.map(() => ({ status: 'settled' })) })),
  },
  {
    fault: 'leases are half as long as asked for',
    caughtBy: 'a lease that runs out gives the message to another, not before its time and soon after',
    make: () => (driver) => ({
      ...driver,
      open: (queue, options, signal) => driver.open(queue, { ...options, leaseMs: options.leaseMs / 2 }, signal),
    }),
  },
  {
    fault: 'ordering keys are ignored',
    caughtBy: 'messages of one key are delivered one at a time, in the order they were sent',
    make: () => changeMessages((message) => ({ ...message, ordered: false })),
  },
  {
    fault: 'what is meant for one group goes to all',
    caughtBy: 'what is sent to one group reaches no other',
    make: () => (driver) => ({ ...driver, send: ({ name }, batch, signal) => driver.send({ name }, batch, signal) }),
  },
  {
    fault: "a dead letter is dropped after twenty looks, though each said 'keep'",
    caughtBy: "'keep' keeps a letter, with its id and bytes, through a hundred looks",
    make: () => {
      const looks = new Map<string, number>()
      return (driver) => ({
        ...driver,
        scanDead: (queue, visit, signal) =>
          driver.scanDead(
            queue,
            async (letter) => {
              const wish = await visit(letter)
              const seen = (looks.get(letter.id) ?? 0) + 1
              looks.set(letter.id, seen)
              return wish === 'keep' && seen >= 20 ? 'remove' : wish
            },
            signal,
          ),
      })
    },
  },
  {
    fault: 'a dead letter is removed before its visit resolved',
    caughtBy: 'a visit that throws ends the scan with what it threw and removes nothing it was shown then',
    make: () => (driver) => ({
      ...driver,
      async scanDead(queue, visit, signal) {
        const letters: { id: string; body: Uint8Array }[] = []
        const take = async (letter: { id: string; body: Uint8Array }): Promise<'remove'> => {
          letters.push(letter)
          return 'remove'
        }
        const { complete } = await driver.scanDead(queue, take, signal)
        for (const { id, body } of letters) {
          if ((await visit({ id, body })) === 'remove') continue
          const copy = { copyId: id, jobId: id, partitionKey: id, ordered: false, delayMs: 0, body }
          await driver.sendDead(queue, [copy], signal)
        }
        return { complete }
      },
    }),
  },
  {
    fault: 'an abort during a visit takes back what the visit decided',
    caughtBy: "a letter is removed where its visit says 'remove', also if the scan was aborted during that visit",
    make: () => (driver) => ({
      ...driver,
      scanDead: (queue, visit, signal) =>
        driver.scanDead(
          queue,
          async (letter) => {
            const wish = await visit(letter)
            return signal.aborted ? 'stop' : wish
          },
          signal,
        ),
    }),
  },
  {
    fault: 'a stopped scan says it was complete',
    caughtBy: "'stop' keeps its letter, shows no more and is not complete",
    make: () => (driver) => ({
      ...driver,
      async scanDead(queue, visit, signal) {
        await driver.scanDead(queue, visit, signal)
        return { complete: true }
      },
    }),
  },
  {
    fault: 'delayed copies are counted as ready',
    caughtBy: 'counts of ready, delayed, in flight and dead are right in the end, and zero when all is done',
    make: () => (driver) => ({
      ...driver,
      async stats(queue, signal) {
        const stats = await driver.stats(queue, signal)
        return { ...stats, ready: (stats.ready ?? 0) + (stats.delayed ?? 0), delayed: 0 }
      },
    }),
  },
  {
    fault: 'a closed driver goes on sending',
    caughtBy: 'after close a send is refused with CLOSED, and closing again does nothing',
    make: () => (driver) => ({ ...driver, close: async () => {} }),
  },
]
