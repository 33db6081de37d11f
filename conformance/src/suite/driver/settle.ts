/** Settling: acked is gone, unsettled is not, and nobody settles what is no longer theirs. */
import assert from 'node:assert/strict'
import type { Settled } from '@idemq/core'
import type { CaseGroup } from '../case.ts'
import { expectCode } from '../refusal.ts'
import { type DriverBench, longLeaseMs, message, messages, sortedTexts, statuses, text, texts } from './bench.ts'
import { counting, type DriverHarness, freeRelease, noCounting, noFreeRelease } from './harness.ts'

export const settleCases: CaseGroup<DriverHarness, DriverBench> = {
  name: 'settle',
  cases: [
    {
      name: 'what was acked never comes back, not even when its holder dies',
      async run(t) {
        const adapter = await t.adapter()
        const queue = await t.declared(adapter.driver)
        await t.send(adapter.driver, queue, messages(3))
        const receiver = await t.open(adapter.driver, queue, { leaseMs: t.scale.leaseMs })
        await t.settle(receiver, await t.take(receiver, 3))
        await t.abandon(adapter)
        const next = await t.open(await t.driver(), queue)
        await t.expectNothing(next, t.scale.leaseMs * 1.5, 'an acked message came back')
      },
    },
    {
      name: 'what was not settled comes back when its holder dies, and only that',
      async run(t) {
        const adapter = await t.adapter()
        const queue = await t.declared(adapter.driver)
        await t.send(adapter.driver, queue, messages(5))
        const receiver = await t.open(adapter.driver, queue, { leaseMs: t.scale.leaseMs })
        const held = await t.take(receiver, 5)
        // Out of order on purpose: the gap must be remembered, not only the highest.
        const [first, second, third, fourth, fifth] = held
        await t.settle(receiver, [fifth!, second!, fourth!])
        await t.abandon(adapter)
        const next = await t.open(await t.driver(), queue)
        const back = await t.take(next, 2, t.returnedWithinMs)
        assert.deepEqual(sortedTexts(back), sortedTexts([first!, third!]))
        await t.settle(next, back)
        await t.expectNothing(next, t.scale.delayMs, 'more came back than was left unsettled')
      },
    },
    {
      name: "settling again is 'lost' and harms nobody, whatever the outcome asked for",
      async run(t) {
        const { driver, queue } = await t.start()
        await t.send(driver, queue, messages(2))
        const receiver = await t.open(driver, queue)
        const [one, two] = await t.take(receiver, 2)
        assert.equal((await t.settleOne(receiver, one!)).status, 'settled')
        assert.equal((await t.settleOne(receiver, one!)).status, 'lost', 'the second ack of a delivery')
        if (t.capabilities.freeRelease) {
          assert.equal((await t.settleOne(receiver, one!, 'release')).status, 'lost', 'a release after the ack')
        }
        assert.equal((await t.settleOne(receiver, two!)).status, 'settled', 'the neighbour')
        await t.expectNothing(receiver, t.scale.delayMs, 'settling again brought a message back')
      },
    },
    {
      name: 'answers come in the order of the batch, each for its own delivery',
      async run(t) {
        const { driver, queue } = await t.start()
        const count = Math.min(4, t.capabilities.maxBatch)
        await t.send(driver, queue, messages(count))
        const receiver = await t.open(driver, queue)
        const held = await t.take(receiver, count)
        const settledBefore = held.filter((_, index) => index % 2 === 1)
        await t.settle(receiver, settledBefore)
        const answers = await receiver.settle(
          held.map((delivery) => ({ delivery, outcome: 'ack' })),
          t.signal,
        )
        assert.deepEqual(
          statuses(answers),
          held.map((one) => (settledBefore.includes(one) ? 'lost' : 'settled')),
        )
      },
    },
    {
      name: "a release gives the same copy back at once, to anyone, and its holder's ack is 'lost'",
      gates: [freeRelease],
      async run(t) {
        const { driver, queue } = await t.start()
        await t.send(driver, queue, [message({ body: 'back' })])
        const receiver = await t.open(driver, queue)
        const first = await t.takeOne(receiver)
        await t.settle(receiver, [first], 'release')
        assert.equal((await t.settleOne(receiver, first)).status, 'lost', 'an ack after the release')
        // The receiver may get it back itself: it has to be closed for another to be sure of it.
        await receiver.close()
        const other = await t.open(await t.driver(), queue)
        assert.equal(text(await t.takeOne(other)), 'back')
      },
    },
    {
      name: 'a release raises no count, however often',
      gates: [freeRelease, counting],
      async run(t) {
        const { driver, queue } = await t.start()
        await t.send(driver, queue, [message()])
        const receiver = await t.open(driver, queue)
        for (let round = 0; round < 5; round++) {
          const delivery = await t.takeOne(receiver)
          assert.equal(delivery.priorDeliveries, 0, `priorDeliveries after ${round} releases`)
          await t.settle(receiver, [delivery], 'release')
        }
      },
    },
    {
      name: 'one batch may mix acks and releases',
      gates: [freeRelease],
      async run(t) {
        const { driver, queue } = await t.start()
        const count = Math.min(6, t.capabilities.maxBatch)
        await t.send(driver, queue, messages(count))
        const receiver = await t.open(driver, queue)
        const held = await t.take(receiver, count)
        const batch = held.map((delivery, at) => ({
          delivery,
          outcome: at % 2 ? ('ack' as const) : ('release' as const),
        }))
        assert.deepEqual(
          statuses(await receiver.settle(batch, t.signal)),
          held.map(() => 'settled'),
        )
        const released = batch.filter(({ outcome }) => outcome === 'release').map(({ delivery }) => delivery)
        const back = await t.take(receiver, released.length)
        assert.deepEqual(sortedTexts(back), sortedTexts(released))
        await t.settle(receiver, back)
        await t.expectNothing(receiver, t.scale.delayMs, 'an acked message came back with the released ones')
      },
    },
    {
      name: 'a release is refused with UNSUPPORTED and the delivery stays held',
      gates: [noFreeRelease],
      async run(t) {
        const { driver, queue } = await t.start()
        await t.send(driver, queue, [message()])
        const receiver = await t.open(driver, queue)
        const delivery = await t.takeOne(receiver)
        let answer: Settled | undefined
        try {
          answer = await t.settleOne(receiver, delivery, 'release')
        } catch (error) {
          expectCode('a release', ['UNSUPPORTED'], error)
        }
        if (answer) {
          assert.equal(answer.status, 'failed', 'a release where the manifest says there is none')
          if (answer.status === 'failed') expectCode('a release', ['UNSUPPORTED'], answer.error)
        }
        assert.equal((await t.settleOne(receiver, delivery)).status, 'settled', 'the ack after the refused release')
      },
    },
    {
      name: 'a first delivery has priorDeliveries 0, and each death of a holder adds one',
      gates: [counting],
      async run(t) {
        const sender = await t.driver()
        const queue = await t.declared(sender)
        await t.send(sender, queue, [message()])
        for (let deaths = 0; deaths < 3; deaths++) {
          const adapter = await t.adapter()
          const receiver = await t.open(adapter.driver, queue, { leaseMs: t.scale.leaseMs })
          const delivery = await t.takeOne(receiver, t.returnedWithinMs + t.scale.eventuallyMs)
          // Without the means to break a connection, a polite close stands in for the death, and may count or not.
          if (t.capabilities.returnsBy === 'lease' || t.harness.sever) {
            assert.equal(delivery.priorDeliveries, deaths, `priorDeliveries after ${deaths} deaths`)
          } else {
            assert.ok((delivery.priorDeliveries ?? -1) >= 0, `priorDeliveries is ${delivery.priorDeliveries}`)
          }
          await t.abandon(adapter)
        }
      },
    },
    {
      name: 'without counting, priorDeliveries is absent, never a made-up number',
      gates: [noCounting],
      async run(t) {
        const adapter = await t.adapter()
        const queue = await t.declared(adapter.driver)
        await t.send(adapter.driver, queue, [message()])
        const receiver = await t.open(adapter.driver, queue, { leaseMs: t.scale.leaseMs })
        assert.equal((await t.takeOne(receiver)).priorDeliveries, undefined)
        await t.abandon(adapter)
        const next = await t.open(await t.driver(), queue)
        assert.equal((await t.takeOne(next, t.returnedWithinMs)).priorDeliveries, undefined, 'of a redelivery')
      },
    },
    {
      name: 'close gives what is unsettled to others, and what it held cannot be settled any more',
      async run(t) {
        const { driver, queue } = await t.start()
        await t.send(driver, queue, messages(4))
        const receiver = await t.open(driver, queue, { leaseMs: t.scale.leaseMs, maxUnsettled: 4 })
        const held = await t.take(receiver, 2)
        await Promise.all([receiver.close(), receiver.close()])
        await receiver.close()
        const next = await t.open(await t.driver(), queue, { leaseMs: longLeaseMs })
        const back = await t.take(next, 4, t.returnedWithinMs)
        assert.deepEqual(sortedTexts(back), sortedTexts(messages(4)))
        const late = await receiver
          .settle([{ delivery: held[0]!, outcome: 'ack' }], t.signal)
          .catch((error: unknown) => {
            expectCode('settle after close', ['CLOSED'], error)
          })
        if (late) assert.deepEqual(statuses(late), ['lost'], 'a settle through a closed receiver')
        await t.settle(next, back)
      },
    },
    {
      name: 'stop ends delivery, gives the buffer to others, and what is in hand can still be settled',
      async run(t) {
        const { driver, queue } = await t.start()
        await t.send(driver, queue, messages(8))
        const receiver = await t.open(driver, queue, { maxUnsettled: 8 })
        const held = await t.take(receiver, 2)
        await receiver.stop()
        assert.deepEqual(texts(await receiver.receive(5, 0, t.signal)), [], 'a delivery after stop')
        if (t.capabilities.canExtend) {
          assert.deepEqual(statuses(await receiver.extend(held, t.signal)), ['settled', 'settled'], 'extend after stop')
        }
        const takeOver = async (): Promise<string[]> =>
          sortedTexts(await t.take(await t.open(await t.driver(), queue), 6))
        const rest = messages(8).filter((one) => !texts(held).includes(text(one)))
        // Leases are long: the buffer must come back because of stop, not because time passed.
        if (t.capabilities.returnsBy !== 'rebalance') assert.deepEqual(await takeOver(), sortedTexts(rest))
        await t.settle(receiver, held)
        await receiver.close()
        if (t.capabilities.returnsBy === 'rebalance') assert.deepEqual(await takeOver(), sortedTexts(rest))
      },
    },
    {
      name: 'a receive that waits while stop is called delivers nothing that comes later',
      async run(t) {
        const { driver, queue } = await t.start()
        const receiver = await t.open(driver, queue)
        const abort = new AbortController()
        const waiting = receiver.receive(1, t.scale.eventuallyMs * 2, abort.signal).catch((error: unknown) => {
          expectCode('a receive that stop ended', ['CLOSED', 'ABORTED'], error)
          return []
        })
        await Promise.all([receiver.stop(), receiver.stop()])
        await t.send(driver, queue, [message({ body: 'later' })])
        // A group that rebalances gives the partition up only with its member.
        if (t.capabilities.returnsBy === 'rebalance') await receiver.close()
        assert.equal(text(await t.takeOne(await t.open(await t.driver(), queue))), 'later')
        abort.abort()
        assert.deepEqual(texts(await waiting), [])
      },
    },
    {
      name: 'closing the driver ends a receive that waits and gives back what is unsettled',
      async run(t) {
        const adapter = await t.adapter()
        const queue = await t.declared(adapter.driver)
        await t.send(adapter.driver, queue, [message({ body: 'held' })])
        const receiver = await t.open(adapter.driver, queue, { leaseMs: t.scale.leaseMs })
        await t.takeOne(receiver)
        const waiting = receiver.receive(1, t.scale.eventuallyMs * 2, t.signal).catch((error: unknown) => {
          expectCode('a receive that close ended', ['CLOSED', 'ABORTED'], error)
          return []
        })
        await adapter.driver.close()
        assert.deepEqual(texts(await waiting), [])
        const next = await t.open(await t.driver(), queue)
        assert.equal(text(await t.takeOne(next, t.returnedWithinMs)), 'held')
      },
    },
  ],
}
