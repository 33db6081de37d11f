/** Receiving: backlog, isolation, bounded waits, aborts, and never more in hand than was asked for. */
import assert from 'node:assert/strict'
import { type Delivery, IdemqError } from '@idemq/core'
import { type CaseGroup, within } from '../case.ts'
import { expectCode } from '../refusal.ts'
import { nowMs, pass } from '../wait.ts'
import { type DriverBench, message, messages, sortedTexts, text, texts } from './bench.ts'
import { type DriverHarness, sharesFreely } from './harness.ts'

export const receiveCases: CaseGroup<DriverHarness, DriverBench> = {
  name: 'receive',
  cases: [
    {
      name: 'what was sent before the first receiver opened is delivered',
      async run(t) {
        const { driver, queue } = await t.start()
        const all = messages(5)
        await t.send(driver, queue, all)
        assert.deepEqual(sortedTexts(await t.take(await t.open(driver, queue), 5)), sortedTexts(all))
      },
    },
    {
      name: 'a new connection goes on where a closed one stopped',
      async run(t) {
        const first = await t.driver()
        const queue = await t.declared(first)
        await t.send(first, queue, messages(4))
        const receiver = await t.open(first, queue, { maxUnsettled: 2 })
        const done = await t.take(receiver, 2)
        await t.settle(receiver, done)
        await first.close()
        const rest = await t.take(await t.open(await t.driver(), queue), 2)
        assert.deepEqual([...texts(done), ...texts(rest)].sort(), sortedTexts(messages(4)))
      },
    },
    {
      name: 'two queues are apart',
      async run(t) {
        const driver = await t.driver()
        const [one, two] = [await t.declared(driver), await t.declared(driver)]
        await t.send(driver, one, [message({ body: 'one' })])
        const receiverTwo = await t.open(driver, two)
        assert.equal(text(await t.takeOne(await t.open(driver, one))), 'one')
        await t.expectNothing(receiverTwo, t.scale.delayMs, 'a message of another queue was delivered')
      },
    },
    {
      name: 'an empty receive ends after about waitMs, neither at once nor late',
      async run(t) {
        const { driver, queue } = await t.start()
        const receiver = await t.open(driver, queue)
        for (const waitMs of [0, t.scale.delayMs]) {
          const startMs = nowMs()
          assert.deepEqual(await receiver.receive(10, waitMs, t.signal), [])
          const tookMs = nowMs() - startMs
          assert.ok(tookMs >= waitMs / 2, `waited ${tookMs} ms of ${waitMs}: a worker would spin`)
          assert.ok(tookMs <= waitMs + t.scale.toleranceMs, `waited ${tookMs} ms, asked for ${waitMs}`)
        }
      },
    },
    {
      name: 'a waiting receive returns as soon as another connection sends',
      async run(t) {
        const { driver, queue } = await t.start()
        const receiver = await t.open(driver, queue)
        const waiting = receiver.receive(10, t.scale.eventuallyMs * 2, t.signal)
        const sender = await t.driver()
        await t.send(sender, queue, [message({ body: 'wake' })])
        const limitMs = t.scale.toleranceMs
        assert.deepEqual(texts(await within(limitMs, 'a waiting receive to see a send', waiting)), ['wake'])
      },
    },
    {
      name: 'a receive never returns more than max',
      async run(t) {
        const { driver, queue } = await t.start()
        await t.send(driver, queue, messages(6))
        const receiver = await t.open(driver, queue)
        for (const max of [1, 2, 3]) {
          const got = await receiver.receive(Math.min(max, t.capabilities.maxBatch), t.scale.eventuallyMs, t.signal)
          assert.ok(got.length >= 1 && got.length <= max, `receive(${max}) returned ${got.length}`)
        }
      },
    },
    {
      name: 'unsettled deliveries never exceed maxUnsettled, and settling makes room',
      async run(t) {
        const { driver, queue } = await t.start()
        await t.send(driver, queue, messages(8))
        const receiver = await t.open(driver, queue, { maxUnsettled: 3 })
        const held = await t.take(receiver, 3)
        await t.expectNothing(receiver, t.scale.delayMs, 'a fourth delivery beyond maxUnsettled')
        await t.settle(receiver, held.slice(0, 2))
        await t.take(receiver, 2)
        await t.expectNothing(receiver, t.scale.delayMs, 'more than maxUnsettled after settling')
      },
    },
    {
      name: 'nothing beyond maxUnsettled is kept from other receivers, buffers included',
      gates: [sharesFreely],
      async run(t) {
        const { driver, queue } = await t.start()
        await t.send(driver, queue, messages(8))
        const one = await t.open(driver, queue, { maxUnsettled: 3 })
        const held = await t.take(one, 1)
        const two = await t.open(await t.driver(), queue)
        const others = await t.take(two, 5)
        assert.equal(new Set(texts([...held, ...others])).size, 6, 'a message was delivered to both')
      },
    },
    {
      name: 'aborting a receive ends it at once, before it began or while it waits',
      async run(t) {
        const { driver, queue } = await t.start()
        const receiver = await t.open(driver, queue)
        const ends = async (what: string, receiving: Promise<Delivery[]>): Promise<void> => {
          try {
            assert.deepEqual(await within(t.scale.toleranceMs, what, receiving), [])
          } catch (error) {
            if (!(error instanceof IdemqError)) throw error
            expectCode(what, ['ABORTED'], error)
          }
        }
        await ends('an aborted receive to end', receiver.receive(1, t.scale.eventuallyMs, AbortSignal.abort()))
        const abort = new AbortController()
        const waiting = receiver.receive(1, t.scale.eventuallyMs * 2, abort.signal)
        abort.abort()
        await ends('a receive to end on abort', waiting)
      },
    },
    {
      name: 'aborting a receive strands nothing',
      async run(t) {
        const { driver, queue } = await t.start()
        const receiver = await t.open(driver, queue)
        const all = messages(20)
        const got: Delivery[] = []
        for (const [index, one] of all.entries()) {
          const abort = new AbortController()
          const waiting = receiver.receive(1, t.scale.eventuallyMs, abort.signal).catch((error: unknown) => {
            expectCode('an aborted receive', ['ABORTED'], error)
            return [] as Delivery[]
          })
          const sending = t.send(driver, queue, [one])
          // From "before the send is under way" to "after the delivery is": the instants in between are what matters.
          for (let turn = 0; turn < index; turn++) await new Promise((resolve) => setImmediate(resolve))
          abort.abort()
          got.push(...(await waiting))
          await sending
        }
        // Leases are long: what an aborted receive took and did not return would not be back in time.
        const rest = await t.take(receiver, all.length - got.length)
        assert.deepEqual(sortedTexts([...got, ...rest]), sortedTexts(all))
      },
    },
    {
      name: 'dead letters are not delivered',
      async run(t) {
        const { driver, queue } = await t.start()
        await t.sendDead(driver, queue, [message({ body: 'dead' })])
        await t.send(driver, queue, [message({ body: 'alive' })])
        const receiver = await t.open(driver, queue)
        assert.equal(text(await t.takeOne(receiver)), 'alive')
        await t.expectNothing(receiver, t.scale.delayMs, 'a dead letter was delivered')
      },
    },
    {
      name: 'competing receivers share the work: each message once, none lost',
      async run(t) {
        const drivers = [await t.driver(), await t.driver()]
        const queue = await t.declared(drivers[0]!)
        const receivers = await Promise.all([0, 1, 0, 1].map((at) => t.open(drivers[at]!, queue, { maxUnsettled: 5 })))
        const all = messages(120)
        const seen: string[] = []
        const work = receivers.map(async (receiver) => {
          const endMs = nowMs() + t.scale.eventuallyMs
          while (seen.length < all.length && nowMs() < endMs) {
            const got = await receiver.receive(Math.min(5, t.capabilities.maxBatch), 50, t.signal)
            if (got.length === 0) await pass(1)
            seen.push(...texts(got))
            await t.settle(receiver, got)
          }
        })
        await t.send(drivers[0]!, queue, all)
        await Promise.all(work)
        const unique = [...new Set(seen)].sort()
        assert.deepEqual(unique, sortedTexts(all))
        if (t.capabilities.returnsBy !== 'rebalance')
          assert.equal(seen.length, all.length, 'a message was delivered twice')
      },
    },
  ],
}
