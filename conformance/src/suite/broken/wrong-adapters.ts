/** Adapters whose fault only shows through core, and drivers that weaken what they should refuse. */
import { type Driver, decodeEnvelope, encodeEnvelope, type InboxStore } from '@idemq/core'
import type { WrongDriver } from './wrong-drivers.ts'

export interface WrongAdapter {
  readonly fault: string
  readonly caughtBy: string
  readonly driver?: (driver: Driver) => Driver
  readonly inbox?: (inbox: InboxStore) => InboxStore
}

export const wrongAdapters: readonly WrongAdapter[] = [
  {
    fault: 'copies beyond the first attempt are answered as stored and dropped',
    caughtBy: 'a job that fails is tried again with its failures, as attempt 2 and 3, and succeeds',
    driver: (driver) => ({
      ...driver,
      async send(target, batch, signal) {
        const first = batch.filter(({ body }) => decodeEnvelope(body).attempt === 1)
        await driver.send(target, first, signal)
        return batch.map(() => ({ status: 'stored' }))
      },
    }),
  },
  {
    fault: 'dead letters are stored without their failures',
    caughtBy: 'after exactly maxAttempts starts a job is dead-lettered with reason, failures and payload',
    driver: (driver) => ({
      ...driver,
      sendDead: (queue, batch, signal) =>
        driver.sendDead(
          queue,
          batch.map((message) => {
            const { failures: _, ...envelope } = decodeEnvelope(message.body)
            return { ...message, body: encodeEnvelope(envelope) }
          }),
          signal,
        ),
    }),
  },
  {
    fault: 'dead letters are answered as stored and dropped',
    caughtBy: 'a permanent failure is dead-lettered at once',
    driver: (driver) => ({ ...driver, sendDead: async (_, batch) => batch.map(() => ({ status: 'stored' })) }),
  },
  {
    fault: 'a replayed letter is not removed',
    caughtBy: 'a replayed job is the same job: identity, key and payload, replay 1, attempts from 1',
    driver: (driver) => ({
      ...driver,
      scanDead: (queue, visit, signal) =>
        driver.scanDead(queue, async (letter) => ((await visit(letter)) === 'stop' ? 'stop' : 'keep'), signal),
    }),
  },
  {
    fault: 'completed jobs are forgotten',
    caughtBy: 'two jobs with one key, one after the other and on two workers: the second is deduplicated',
    inbox: (inbox) => ({
      ...inbox,
      end: (batch, retentionMs, signal) =>
        inbox.end(
          batch.map((end) => ({ ...end, state: end.state === 'completed' ? 'released' : end.state })),
          retentionMs,
          signal,
        ),
    }),
  },
  {
    fault: 'starts are not counted',
    caughtBy: 'starts lost in crashes count: a job that used them up is dead-lettered without starting',
    inbox: (inbox) => ({
      ...inbox,
      claim: async (batch, times, signal) =>
        (await inbox.claim(batch, times, signal)).map((answer, index) =>
          answer.status === 'claimed' ? { ...answer, attempt: batch[index]!.attempt } : answer,
        ),
    }),
  },
  {
    fault: 'every claim is granted',
    caughtBy: 'fifty jobs with one key, at once, on two workers: one runs, the others are deduplicated, none is dead',
    inbox: (inbox) => ({
      ...inbox,
      claim: async (batch) =>
        batch.map(({ attempt }) => ({ status: 'claimed', token: Math.random(), attempt, crashed: false })),
      end: async (batch) => batch.map(() => 'held'),
    }),
  },
  {
    fault: 'steps are not recorded',
    caughtBy: 'results of steps are kept: a retry skips what was done, and the key for a provider stays the same',
    inbox: (inbox) => ({ ...inbox, record: async (batch) => batch.map(() => 'held') }),
  },
]

/** Wrong on top of the poor driver: they do halfway what its manifest says it cannot. */
export const weakenedDrivers: readonly WrongDriver[] = [
  {
    fault: 'a release it cannot do is answered as settled',
    caughtBy: 'a release is refused with UNSUPPORTED and the delivery stays held',
    make: () => (driver) => ({
      ...driver,
      async open(queue, options, signal) {
        const receiver = await driver.open(queue, options, signal)
        return { ...receiver, settle: async (batch) => batch.map(() => ({ status: 'settled' })) }
      },
    }),
  },
  {
    fault: 'an extend it cannot do is answered as settled',
    caughtBy: 'extend is refused with UNSUPPORTED and the delivery stays held',
    make: () => (driver) => ({
      ...driver,
      async open(queue, options, signal) {
        const receiver = await driver.open(queue, options, signal)
        return { ...receiver, extend: async (batch) => batch.map(() => ({ status: 'settled' })) }
      },
    }),
  },
  {
    fault: 'a count it does not have is made up',
    caughtBy: 'without counting, priorDeliveries is absent, never a made-up number',
    make: () => (driver) => ({
      ...driver,
      async open(queue, options, signal) {
        const receiver = await driver.open(queue, options, signal)
        return {
          ...receiver,
          receive: async (max, waitMs, abort) =>
            (await receiver.receive(max, waitMs, abort)).map((delivery) =>
              Object.assign(delivery, { priorDeliveries: 0 }),
            ),
        }
      },
    }),
  },
  {
    fault: 'figures its manifest does not name are told',
    caughtBy: 'exactly the figures the manifest names are told',
    make: () => (driver) => ({
      ...driver,
      stats: async (queue, signal) => ({ ...(await driver.stats(queue, signal)), inFlight: 0 }),
    }),
  },
]
