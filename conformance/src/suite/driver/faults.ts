/** Faults the harness can cause: restarts, kills and cut connections of the broker. */
import assert from 'node:assert/strict'
import { type Delivery, type Driver, IdemqError, type QueueRef } from '@idemq/core'
import type { CaseGroup } from '../case.ts'
import { nowMs, pass, until } from '../wait.ts'
import { type DriverBench, message, messages, sortedTexts, text } from './bench.ts'
import { type DriverHarness, durable, kills, restarts, severs } from './harness.ts'

/** Repeats what core would repeat: calls rejected with a retryable error. Anything else fails the case. */
async function persist<T>(t: DriverBench, what: string, call: () => Promise<T>): Promise<T> {
  const attempt = async (): Promise<{ value: T } | { error: IdemqError }> => {
    try {
      return { value: await call() }
    } catch (error) {
      assert.ok(error instanceof IdemqError, `${what} rejected with ${String(error)}, not an IdemqError`)
      assert.ok(error.retryable, `${what} rejected during an outage with ${error.code}, which is not retryable`)
      return { error }
    }
  }
  const outcome = await until(`${what} to succeed again`, t.scale.eventuallyMs * 3, attempt, (seen) => 'value' in seen)
  return (outcome as { value: T }).value
}

/** Sends one message as core would: the same again while its fate is unknown or failed for now, until it is stored. */
async function persistSend(t: DriverBench, driver: Driver, queue: QueueRef, body: string): Promise<void> {
  const copy = message({ body })
  await persist(t, 'send', async () => {
    const answers = await driver.send(queue, [copy], t.signal)
    assert.equal(answers.length, 1)
    const [answer] = answers
    if (answer?.status === 'failed') throw answer.error
    if (answer?.status === 'unknown') throw new IdemqError('BROKER_UNAVAILABLE', 'its fate is unknown')
  })
}

async function survives(t: DriverBench, outage: () => Promise<void>): Promise<void> {
  const { driver, queue } = await t.start()
  const { delayMs, toleranceMs } = t.scale
  await t.send(driver, queue, messages(3))
  const sentMs = nowMs()
  await t.send(driver, queue, [message({ body: 'delayed', delayMs })])
  await t.sendDead(driver, queue, [message({ body: 'dead' })])
  await outage()
  const receiver = await t.open(await t.driver(), queue)
  const got: Delivery[] = []
  while (got.length < 4) {
    got.push(await t.takeOne(receiver, t.scale.eventuallyMs * 3 + delayMs + toleranceMs))
    if (text(got.at(-1)!) === 'delayed') assert.ok(nowMs() - sentMs >= delayMs - 2, 'the outage made a delay end early')
  }
  assert.deepEqual(sortedTexts(got), [...sortedTexts(messages(3)), 'delayed'].sort())
  assert.deepEqual(
    (await t.deadLetters(await t.driver(), queue)).map(({ body }) => body),
    ['dead'],
  )
}

async function reconnects(t: DriverBench, outage: () => Promise<void>): Promise<void> {
  const { driver, queue } = await t.start()
  const receiver = await t.open(driver, queue)
  await outage()
  await persistSend(t, driver, queue, 'after')
  const got = await persist(t, 'receive', async () => {
    const deliveries = await receiver.receive(1, 100, t.signal)
    if (deliveries.length === 0) throw new IdemqError('BROKER_BUSY', 'nothing yet')
    return deliveries
  })
  assert.equal(text(got[0]!), 'after')
}

export const faultCases: CaseGroup<DriverHarness, DriverBench> = {
  name: 'faults',
  cases: [
    {
      name: 'what was confirmed outlives a restart of the broker: ready, delayed and dead',
      gates: [durable, restarts],
      run: (t) => survives(t, t.harness.restart!),
    },
    {
      name: 'what was confirmed outlives the sudden death of the broker: ready, delayed and dead',
      gates: [durable, kills],
      async run(t) {
        // Some brokers take a second to make a new queue durable; that is theirs, not the driver's.
        await survives(t, async () => {
          await pass(t.scale.toleranceMs)
          await t.harness.kill?.()
        })
      },
    },
    {
      name: 'the same driver and receiver work again after a restart; until then errors are retryable',
      gates: [restarts],
      run: (t) => reconnects(t, t.harness.restart!),
    },
    {
      name: 'what a severed receiver held comes back, and the severed one cannot settle it',
      gates: [severs],
      async run(t) {
        const adapter = await t.adapter()
        const queue = await t.declared(adapter.driver)
        await t.send(adapter.driver, queue, [message({ body: 'held' })])
        const reported: Delivery[] = []
        const receiver = await t.open(adapter.driver, queue, {
          leaseMs: t.scale.leaseMs,
          onLost: (deliveries) => reported.push(...deliveries),
        })
        const held = await t.takeOne(receiver)
        await t.harness.sever?.(adapter)
        const next = await t.open(await t.driver(), queue)
        const delivery = await t.takeOne(next, t.returnedWithinMs)
        assert.equal(text(delivery), 'held')
        const late = await receiver.settle([{ delivery: held, outcome: 'ack' }], t.signal).catch(() => [])
        assert.notEqual(late[0]?.status, 'settled', 'a severed receiver settled what another holds')
        if (t.capabilities.returnsBy !== 'lease') {
          await until(
            'onLost to report what was held',
            t.scale.eventuallyMs,
            () => reported,
            (seen) => seen.includes(held),
          )
        }
        assert.equal((await t.settleOne(next, delivery)).status, 'settled')
      },
    },
    {
      name: 'the same driver and receiver work again after their connections were severed',
      gates: [severs],
      async run(t) {
        const adapter = await t.adapter()
        const queue = await t.declared(adapter.driver)
        const receiver = await t.open(adapter.driver, queue)
        await t.harness.sever?.(adapter)
        await persistSend(t, adapter.driver, queue, 'again')
        const got = await persist(t, 'receive', async () => {
          const deliveries = await receiver.receive(1, 100, t.signal)
          if (deliveries.length === 0) throw new IdemqError('BROKER_BUSY', 'nothing yet')
          return deliveries
        })
        assert.equal(text(got[0]!), 'again')
      },
    },
  ],
}
