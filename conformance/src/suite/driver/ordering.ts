/** Ordering keys: one at a time, in order, and nobody else waits for them. */
import assert from 'node:assert/strict'
import { randomUUID } from 'node:crypto'
import type { Outgoing } from '@idemq/core'
import type { CaseGroup } from '../case.ts'
import { type DriverBench, messages, text } from './bench.ts'
import { type DriverHarness, freeRelease, ordering, strictOrdering } from './harness.ts'

const lane = (name: string, count: number): Outgoing[] => {
  const partitionKey = `${name}-${randomUUID()}`
  return messages(count, (index) => ({ body: `${name}${index}`, partitionKey, ordered: true }))
}

export const orderingCases: CaseGroup<DriverHarness, DriverBench> = {
  name: 'ordering',
  cases: [
    {
      name: 'messages of one key are delivered one at a time, in the order they were sent',
      gates: [ordering],
      async run(t) {
        const { driver, queue } = await t.start()
        const one = lane('a', 6)
        await t.send(driver, queue, one.slice(0, 3))
        await t.send(await t.driver(), queue, one.slice(3, 4))
        await t.send(driver, queue, one.slice(4))
        const receiver = await t.open(driver, queue)
        for (const expected of one) {
          const delivery = await t.takeOne(receiver)
          assert.equal(text(delivery), text(expected))
          const more = await receiver.receive(t.capabilities.maxBatch, t.scale.delayMs / 4, t.signal)
          assert.deepEqual(more.map(text), [], `delivered while ${text(expected)} is unsettled`)
          await t.settle(receiver, [delivery])
        }
      },
    },
    {
      name: 'a key that is busy holds up neither other keys nor messages without order',
      gates: [ordering],
      async run(t) {
        const { driver, queue } = await t.start()
        await t.send(driver, queue, lane('a', 20))
        await t.send(driver, queue, lane('b', 2))
        await t.send(
          driver,
          queue,
          messages(2, (index) => ({ body: `free${index}` })),
        )
        const receiver = await t.open(driver, queue, { maxUnsettled: 5 })
        const heads = (await t.take(receiver, 4)).map(text).sort()
        assert.deepEqual(heads, ['a0', 'b0', 'free0', 'free1'])
      },
    },
    {
      name: 'order holds across connections: another receiver gets no later message of a busy key',
      gates: [ordering],
      async run(t) {
        const { driver, queue } = await t.start()
        await t.send(driver, queue, lane('a', 3))
        const one = await t.open(driver, queue)
        const head = await t.takeOne(one)
        const two = await t.open(await t.driver(), queue)
        await t.expectNothing(two, t.scale.delayMs, `delivered elsewhere while ${text(head)} is unsettled`)
        await t.settle(one, [head])
        await one.close()
        assert.equal(text(await t.takeOne(two)), 'a1')
      },
    },
    {
      name: 'after the death of its holder the head of a key comes first again',
      gates: [ordering],
      async run(t) {
        const adapter = await t.adapter()
        const queue = await t.declared(adapter.driver)
        await t.send(adapter.driver, queue, lane('a', 3))
        const holder = await t.open(adapter.driver, queue, { leaseMs: t.scale.leaseMs })
        await t.settle(holder, [await t.takeOne(holder)])
        assert.equal(text(await t.takeOne(holder)), 'a1')
        await t.abandon(adapter)
        const next = await t.open(await t.driver(), queue)
        for (const expected of ['a1', 'a2']) {
          const delivery = await t.takeOne(next, t.returnedWithinMs)
          assert.equal(text(delivery), expected)
          await t.settle(next, [delivery])
        }
      },
    },
    {
      name: 'a released head comes before its successors',
      gates: [strictOrdering, freeRelease],
      async run(t) {
        const { driver, queue } = await t.start()
        await t.send(driver, queue, lane('a', 2))
        const receiver = await t.open(driver, queue)
        await t.settle(receiver, [await t.takeOne(receiver)], 'release')
        assert.equal(text(await t.takeOne(receiver)), 'a0')
      },
    },
  ],
}
