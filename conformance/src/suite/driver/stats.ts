/** Figures: those the manifest names, right in the end; those it does not name, absent. */
import assert from 'node:assert/strict'
import type { Driver, QueueRef, QueueStats } from '@idemq/core'
import type { CaseGroup } from '../case.ts'
import { pass, until } from '../wait.ts'
import { type DriverBench, messages } from './bench.ts'
import type { DriverHarness } from './harness.ts'

/** Waits until what the driver can tell of `expected` is as expected. */
async function untilStats(t: DriverBench, driver: Driver, queue: QueueRef, expected: QueueStats): Promise<QueueStats> {
  const told = Object.entries(expected).filter(([name]) => t.capabilities.stats.includes(name as keyof QueueStats))
  return until(
    `stats ${JSON.stringify(Object.fromEntries(told))}`,
    t.scale.eventuallyMs,
    () => driver.stats(queue, t.signal),
    (stats) => told.every(([name, value]) => stats[name as keyof QueueStats] === value),
  )
}

export const statsCases: CaseGroup<DriverHarness, DriverBench> = {
  name: 'stats',
  cases: [
    {
      name: 'counts of ready, delayed, in flight and dead are right in the end, and zero when all is done',
      async run(t) {
        const { driver, queue } = await t.start()
        await untilStats(t, driver, queue, { ready: 0, delayed: 0, inFlight: 0, dead: 0 })
        await t.send(driver, queue, messages(5))
        await t.send(
          driver,
          queue,
          messages(2, () => ({ delayMs: Math.min(t.capabilities.maxDelayMs ?? 60_000, 60_000) })),
        )
        await t.sendDead(driver, queue, messages(3))
        await untilStats(t, await t.driver(), queue, { ready: 5, delayed: 2, inFlight: 0, dead: 3 })
        const receiver = await t.open(driver, queue, { maxUnsettled: 2 })
        const held = await t.take(receiver, 2)
        await untilStats(t, driver, queue, { ready: 3, delayed: 2, inFlight: 2, dead: 3 })
        await t.settle(receiver, held)
        await t.settle(receiver, await t.take(receiver, 2))
        await t.settle(receiver, await t.take(receiver, 1))
        await driver.scanDead(queue, async () => 'remove', t.signal)
        await untilStats(t, driver, queue, { ready: 0, delayed: 2, inFlight: 0, dead: 0 })
      },
    },
    {
      name: 'exactly the figures the manifest names are told',
      async run(t) {
        const { driver, queue } = await t.start()
        await t.send(driver, queue, messages(2))
        await t.send(
          driver,
          queue,
          messages(1, () => ({ delayMs: Math.min(t.capabilities.maxDelayMs ?? 60_000, 60_000) })),
        )
        const receiver = await t.open(driver, queue, { maxUnsettled: 1 })
        await t.takeOne(receiver)
        const stats = await until(
          `the figures ${t.capabilities.stats.join(', ')}`,
          t.scale.eventuallyMs,
          () => driver.stats(queue, t.signal),
          (seen) => t.capabilities.stats.every((name) => seen[name] !== undefined),
        )
        const unnamed = Object.entries(stats).filter(
          ([name, value]) => value !== undefined && !t.capabilities.stats.includes(name as keyof QueueStats),
        )
        assert.deepEqual(unnamed, [], 'figures that the manifest does not name')
      },
    },
    {
      name: 'ages grow with time and the next due time is ahead, within the delay',
      async run(t) {
        const { driver, queue } = await t.start()
        const { delayMs } = t.scale
        const dueInMs = Math.min(t.capabilities.maxDelayMs ?? 60_000, 60_000)
        await t.send(driver, queue, messages(2))
        await t.send(
          driver,
          queue,
          messages(1, () => ({ delayMs: dueInMs })),
        )
        const receiver = await t.open(driver, queue, { maxUnsettled: 1 })
        await t.takeOne(receiver)
        await pass(delayMs)
        const told = (name: keyof QueueStats): boolean => t.capabilities.stats.includes(name)
        await until(
          `ages of at least ${delayMs} ms`,
          t.scale.eventuallyMs,
          () => driver.stats(queue, t.signal),
          ({ oldestReadyAgeMs = 0, oldestInFlightAgeMs = 0, nextDueInMs = 0 }) =>
            (!told('oldestReadyAgeMs') || oldestReadyAgeMs >= delayMs - 2) &&
            (!told('oldestInFlightAgeMs') || oldestInFlightAgeMs >= delayMs - 2) &&
            (!told('nextDueInMs') || (nextDueInMs > 0 && nextDueInMs <= dueInMs)),
        )
        const { oldestReadyAgeMs = 0, oldestInFlightAgeMs = 0 } = await driver.stats(queue, t.signal)
        const sane = delayMs + t.scale.eventuallyMs * 2
        assert.ok(oldestReadyAgeMs <= sane && oldestInFlightAgeMs <= sane, 'an age beyond the age of the queue')
      },
    },
  ],
}
