/** Holding: how long a delivery is ours, how it is kept, and what a holder that lost it can still do: nothing. */
import assert from 'node:assert/strict'
import type { Delivery, Receiver, Settled } from '@idemq/core'
import type { CaseGroup } from '../case.ts'
import { expectCode } from '../refusal.ts'
import { nowMs, pass } from '../wait.ts'
import { type DriverBench, longLeaseMs, message, messages, sortedTexts, statuses, text } from './bench.ts'
import { byLease, type DriverHarness, extends_, freeRelease, noExtend } from './harness.ts'

/** Two clocks that tick in whole milliseconds may differ by this much without anybody being early. */
const clockRoundingMs = 2

/** Extends every quarter of the lease for `forMs`. True if this process stalled so long that it may have lapsed. */
async function keepFor(t: DriverBench, holder: Receiver, delivery: Delivery, forMs: number): Promise<boolean> {
  const untilMs = nowMs() + forMs
  let askedMs = nowMs()
  while (nowMs() < untilMs) {
    await pass(t.scale.leaseMs / 4)
    const heldUntilMs = delivery.holdUntilMs
    const answers = statuses(await holder.extend([delivery], t.signal))
    if (nowMs() - askedMs > t.scale.leaseMs * 0.8) return true
    askedMs = nowMs()
    assert.deepEqual(answers, ['settled'])
    assert.ok(delivery.holdUntilMs >= heldUntilMs, 'extend moved holdUntilMs back')
  }
  return false
}

export const leaseCases: CaseGroup<DriverHarness, DriverBench> = {
  name: 'lease',
  cases: [
    {
      name: 'holdUntilMs lies ahead on the monotonic clock, and not beyond the lease where there is one',
      async run(t) {
        const { driver, queue } = await t.start()
        await t.send(driver, queue, [message()])
        const { leaseMs } = t.scale
        const receiver = await t.open(driver, queue, { leaseMs })
        const { holdUntilMs } = await t.takeOne(receiver)
        assert.ok(holdUntilMs > nowMs(), `holdUntilMs ${holdUntilMs} is past, it is ${nowMs()}`)
        if (t.capabilities.returnsBy !== 'lease') return
        // Later than the broker's own end would let two hold it at once.
        assert.ok(
          holdUntilMs <= nowMs() + leaseMs,
          `holdUntilMs is ${holdUntilMs - nowMs()} ms ahead, lease ${leaseMs}`,
        )
      },
    },
    {
      name: 'a lease that runs out gives the message to another, not before its time and soon after',
      gates: [byLease],
      async run(t) {
        const { driver, queue } = await t.start()
        const { leaseMs, toleranceMs } = t.scale
        await t.send(driver, queue, [message({ body: 'held' })])
        const holder = await t.open(driver, queue, { leaseMs })
        const next = await t.open(await t.driver(), queue)
        const beforeMs = nowMs()
        await t.takeOne(holder)
        const takenMs = nowMs()
        assert.equal(text(await t.takeOne(next, leaseMs + toleranceMs)), 'held')
        const sinceMs = nowMs() - beforeMs
        assert.ok(sinceMs >= leaseMs - clockRoundingMs, `delivered again after ${sinceMs} ms of a lease of ${leaseMs}`)
        const lateMs = nowMs() - takenMs - leaseMs
        assert.ok(lateMs <= toleranceMs, `delivered again ${lateMs} ms after the lease ended`)
      },
    },
    {
      name: 'a lone receiver gets back what it let lapse, and only the new delivery settles it',
      gates: [byLease],
      async run(t) {
        const { driver, queue } = await t.start()
        await t.send(driver, queue, [message()])
        const receiver = await t.open(driver, queue, { leaseMs: t.scale.leaseMs })
        const stale = await t.takeOne(receiver)
        const fresh = await t.takeOne(receiver, t.scale.leaseMs + t.scale.toleranceMs)
        assert.equal((await t.settleOne(receiver, stale)).status, 'lost', 'an ack through the lapsed delivery')
        if (t.capabilities.canExtend) {
          assert.deepEqual(
            statuses(await receiver.extend([stale], t.signal)),
            ['lost'],
            'extending the lapsed delivery',
          )
        }
        assert.equal((await t.settleOne(receiver, fresh)).status, 'settled')
      },
    },
    {
      name: 'extend keeps the message from others, and without it the message goes to them',
      gates: [byLease, extends_],
      async run(t) {
        const { driver, queue } = await t.start()
        const { leaseMs, toleranceMs } = t.scale
        const holder = await t.open(driver, queue, { leaseMs })
        const other = await t.open(await t.driver(), queue)
        for (let round = 1; ; round++) {
          await t.send(driver, queue, [message({ body: 'kept' })])
          const delivery = await t.takeOne(holder)
          const stalled = await keepFor(t, holder, delivery, leaseMs * 2)
          const taken = await other.receive(1, 0, t.signal)
          if (stalled && round < 5) {
            // This process was too slow to keep the lease: that says nothing about the driver.
            await t.settle(other, taken.length > 0 ? taken : await t.take(other, 1, leaseMs + toleranceMs))
            continue
          }
          assert.deepEqual(taken.map(text), [], 'a message whose lease was extended')
          assert.equal(text(await t.takeOne(other, leaseMs + toleranceMs)), 'kept')
          return
        }
      },
    },
    {
      name: 'extend moves holdUntilMs of the delivery in hand',
      gates: [byLease, extends_],
      async run(t) {
        const { driver, queue } = await t.start()
        const { leaseMs } = t.scale
        await t.send(driver, queue, [message()])
        const receiver = await t.open(driver, queue, { leaseMs })
        const delivery = await t.takeOne(receiver)
        const before = delivery.holdUntilMs
        await pass(leaseMs / 4)
        assert.deepEqual(statuses(await receiver.extend([delivery], t.signal)), ['settled'])
        assert.ok(delivery.holdUntilMs > before, `holdUntilMs stayed at ${before}`)
        assert.ok(delivery.holdUntilMs <= nowMs() + leaseMs, 'holdUntilMs lies beyond the extended lease')
      },
    },
    {
      name: "extend answers in the order of the batch; what was settled is 'lost'",
      gates: [extends_],
      async run(t) {
        const { driver, queue } = await t.start()
        const count = Math.min(3, t.capabilities.maxBatch)
        await t.send(driver, queue, messages(count))
        const receiver = await t.open(driver, queue)
        const held = await t.take(receiver, count)
        const acked = held.slice(1, 2)
        await t.settle(receiver, acked)
        const answers = statuses(await receiver.extend(held, t.signal))
        assert.deepEqual(
          answers,
          held.map((one) => (acked.includes(one) ? 'lost' : 'settled')),
        )
      },
    },
    {
      name: 'extend is refused with UNSUPPORTED and the delivery stays held',
      gates: [noExtend],
      async run(t) {
        const { driver, queue } = await t.start()
        await t.send(driver, queue, [message()])
        const receiver = await t.open(driver, queue)
        const delivery = await t.takeOne(receiver)
        let answers: Settled[] = []
        try {
          answers = await receiver.extend([delivery], t.signal)
        } catch (error) {
          expectCode('extend', ['UNSUPPORTED'], error)
        }
        for (const answer of answers) {
          assert.equal(answer.status, 'failed', 'extend where the manifest says it cannot')
          if (answer.status === 'failed') expectCode('extend', ['UNSUPPORTED'], answer.error)
        }
        assert.equal((await t.settleOne(receiver, delivery)).status, 'settled', 'the ack after the refused extend')
      },
    },
    {
      name: "a settle or extend by who lost the delivery is 'lost' and leaves it with its new holder",
      gates: [byLease],
      async run(t) {
        const { driver, queue } = await t.start()
        const { leaseMs, toleranceMs } = t.scale
        await t.send(driver, queue, [message()])
        const loser = await t.open(driver, queue, { leaseMs })
        const stale = await t.takeOne(loser)
        const holder = await t.open(await t.driver(), queue)
        const delivery = await t.takeOne(holder, leaseMs + toleranceMs)
        if (t.capabilities.canExtend) {
          assert.deepEqual(statuses(await loser.extend([stale], t.signal)), ['lost'], 'a stale extend')
          assert.deepEqual(statuses(await holder.extend([delivery], t.signal)), ['settled'], 'after a stale extend')
        }
        assert.equal((await t.settleOne(loser, stale)).status, 'lost', 'a stale ack')
        const third = await t.open(await t.driver(), queue)
        await t.expectNothing(third, t.scale.delayMs, 'a stale ack let the message go to a third')
        assert.equal((await t.settleOne(holder, delivery)).status, 'settled', "the new holder's ack")
      },
    },
    {
      name: 'a stale release does not take the message from its new holder',
      gates: [byLease, freeRelease],
      async run(t) {
        const { driver, queue } = await t.start()
        await t.send(driver, queue, [message()])
        const loser = await t.open(driver, queue, { leaseMs: t.scale.leaseMs })
        const stale = await t.takeOne(loser)
        const holder = await t.open(await t.driver(), queue)
        const delivery = await t.takeOne(holder, t.scale.leaseMs + t.scale.toleranceMs)
        assert.equal((await t.settleOne(loser, stale, 'release')).status, 'lost', 'a stale release')
        const third = await t.open(await t.driver(), queue)
        await t.expectNothing(third, t.scale.delayMs, 'a stale release gave the message to a third')
        assert.equal((await t.settleOne(holder, delivery)).status, 'settled', "the new holder's ack")
      },
    },
    {
      name: 'a stale ack does not remove the message: it comes back when its new holder dies too',
      gates: [byLease],
      async run(t) {
        const { driver, queue } = await t.start()
        const { leaseMs, toleranceMs } = t.scale
        await t.send(driver, queue, [message({ body: 'survivor' })])
        const loser = await t.open(driver, queue, { leaseMs })
        const stale = await t.takeOne(loser)
        const holder = await t.open(await t.driver(), queue, { leaseMs })
        await t.takeOne(holder, leaseMs + toleranceMs)
        assert.equal((await t.settleOne(loser, stale)).status, 'lost')
        const heir = await t.open(await t.driver(), queue)
        assert.equal(text(await t.takeOne(heir, leaseMs + toleranceMs)), 'survivor')
      },
    },
    {
      name: 'a settle after the lease ran out is true to its answer: settled is gone, lost comes back',
      gates: [byLease],
      async run(t) {
        const { driver, queue } = await t.start()
        const { leaseMs, toleranceMs } = t.scale
        const count = Math.min(3, t.capabilities.maxBatch)
        await t.send(driver, queue, messages(count))
        const holder = await t.open(driver, queue, { leaseMs })
        const held = await t.take(holder, count)
        await pass(leaseMs * 1.2)
        const answers = await holder.settle(
          held.map((delivery) => ({ delivery, outcome: 'ack' })),
          t.signal,
        )
        for (const { status } of answers) assert.ok(status === 'settled' || status === 'lost', `answered '${status}'`)
        const lost = held.filter((_, index) => answers[index]?.status === 'lost')
        const next = await t.open(await t.driver(), queue, { leaseMs: longLeaseMs })
        assert.deepEqual(sortedTexts(await t.take(next, lost.length, leaseMs + toleranceMs)), sortedTexts(lost))
        await t.expectNothing(next, t.scale.delayMs, "a message whose ack was answered 'settled' came back")
      },
    },
  ],
}
