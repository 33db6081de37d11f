/** Delays: never early, late by no more than the manifest says, and nobody waits for somebody else's. */
import assert from 'node:assert/strict'
import type { CaseGroup } from '../case.ts'
import { within } from '../case.ts'
import { nowMs } from '../wait.ts'
import { type DriverBench, message, messages, text, texts } from './bench.ts'
import type { DriverHarness } from './harness.ts'

const clockRoundingMs = 2
const sixtyDaysMs = 60 * 24 * 3_600_000

export const delayCases: CaseGroup<DriverHarness, DriverBench> = {
  name: 'delay',
  cases: [
    {
      name: 'a delayed copy is never early and late by no more than delayGranularityMs',
      async run(t) {
        const { driver, queue } = await t.start()
        const { delayMs, toleranceMs } = t.scale
        const receiver = await t.open(driver, queue)
        const sentMs = nowMs()
        await t.send(
          driver,
          queue,
          messages(4, (index) => ({ body: `${index * delayMs}`, delayMs: index * delayMs })),
        )
        for (let seen = 0; seen < 4; seen++) {
          const dueMs = Number(text(await t.takeOne(receiver)))
          const tookMs = nowMs() - sentMs
          assert.ok(tookMs >= dueMs - clockRoundingMs, `a delay of ${dueMs} ms ended after ${tookMs} ms`)
          const lateMs = tookMs - dueMs
          const allowedMs = t.capabilities.delayGranularityMs + toleranceMs
          assert.ok(lateMs <= allowedMs, `a delay of ${dueMs} ms was ${lateMs} ms late, allowed ${allowedMs}`)
        }
      },
    },
    {
      name: 'a long delay sent first does not hold up a short one',
      async run(t) {
        const { driver, queue } = await t.start()
        const { delayMs, toleranceMs } = t.scale
        const receiver = await t.open(driver, queue)
        const longMs = Math.min(t.capabilities.maxDelayMs ?? Number.POSITIVE_INFINITY, 600_000)
        await t.send(driver, queue, [message({ body: 'long', delayMs: longMs })])
        await t.send(driver, queue, [message({ body: 'short', delayMs })])
        const limitMs = delayMs + t.capabilities.delayGranularityMs + toleranceMs
        assert.equal(text(await t.takeOne(receiver, limitMs)), 'short')
      },
    },
    {
      name: 'a receive that waits gets a delayed copy when it is due, without being asked again',
      async run(t) {
        const { driver, queue } = await t.start()
        const { delayMs, toleranceMs } = t.scale
        const receiver = await t.open(driver, queue)
        const waitMs = (delayMs + t.capabilities.delayGranularityMs + toleranceMs) * 2
        const sentMs = nowMs()
        const waiting = receiver.receive(1, waitMs, t.signal)
        await t.send(await t.driver(), queue, [message({ body: 'due', delayMs })])
        const limitMs = delayMs + t.capabilities.delayGranularityMs + toleranceMs
        assert.deepEqual(texts(await within(limitMs, 'a waiting receive to see a due copy', waiting)), ['due'])
        assert.ok(nowMs() - sentMs >= delayMs - clockRoundingMs, 'it was early')
      },
    },
    {
      name: 'a delayed copy outlives the connection that sent it',
      async run(t) {
        const sender = await t.driver()
        const queue = await t.declared(sender)
        const { delayMs } = t.scale
        const sentMs = nowMs()
        await t.send(sender, queue, [message({ body: 'later', delayMs })])
        await sender.close()
        const receiver = await t.open(await t.driver(), queue)
        assert.equal(text(await t.takeOne(receiver)), 'later')
        assert.ok(nowMs() - sentMs >= delayMs - clockRoundingMs, 'it was early')
      },
    },
    {
      name: 'many copies due at the same instant all come, once each',
      async run(t) {
        const { driver, queue } = await t.start()
        const { delayMs } = t.scale
        await t.send(
          driver,
          queue,
          messages(50, () => ({ delayMs })),
        )
        const receiver = await t.open(driver, queue)
        assert.equal(new Set(texts(await t.take(receiver, 50))).size, 50)
        await t.expectNothing(receiver, delayMs, 'a delayed copy was delivered twice')
      },
    },
    {
      name: 'the longest delay is taken and waits (60 days where there is no limit)',
      async run(t) {
        const { driver, queue } = await t.start()
        const { maxDelayMs = sixtyDaysMs, retentionMs = sixtyDaysMs } = t.capabilities
        const longestMs = Math.min(maxDelayMs, retentionMs, sixtyDaysMs)
        await t.send(driver, queue, [message({ body: 'far', delayMs: longestMs })])
        await t.send(driver, queue, [message({ body: 'near' })])
        const receiver = await t.open(driver, queue)
        assert.equal(text(await t.takeOne(receiver)), 'near')
        await t.expectNothing(receiver, t.scale.delayMs, `a delay of ${longestMs} ms`)
      },
    },
  ],
}
