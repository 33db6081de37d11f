/** Delays: never early, whatever the broker can hold. */
import { describe, expect, it } from 'vitest'
import type { Driver } from '../src/index.ts'
import { altered, numberedJob, openScene } from './scene.ts'

/** A broker that holds a message back for `maxDelayMs` at most, and refuses to be asked for more. */
function shortDelays(driver: Driver, maxDelayMs: number, sent: number[] = []): Driver {
  return altered(driver, {
    capabilities: { ...driver.capabilities, maxDelayMs },
    send: async (target, batch, signal) => {
      for (const { delayMs } of batch) {
        sent.push(delayMs)
        expect(delayMs).toBeLessThanOrEqual(maxDelayMs)
      }
      return driver.send(target, batch, signal)
    },
  })
}

it('runs a delayed job when it is due, not a millisecond early', async () => {
  const scene = await openScene()
  const job = numberedJob()
  const ran: number[] = []
  const worker = scene.worker().handle(job, ({ n }) => {
    ran.push(n)
  })
  await worker.start()
  await scene.mq.enqueue(job, { n: 1 }, { delayMs: 3_600_000 })
  await scene.clock.advance(3_599_999)
  expect(ran).toEqual([])
  await scene.clock.advance(1)
  expect(ran).toEqual([1])
})

describe('a delay beyond what the broker holds', () => {
  it('hops: never early, the hops counted, one attempt', async () => {
    const sent: number[] = []
    const scene = await openScene({ driver: (driver) => shortDelays(driver, 60_000, sent) })
    const job = numberedJob()
    const ranMs: number[] = []
    const worker = scene.worker().handle(job, () => {
      ranMs.push(scene.clock.monotonicMs())
    })
    await worker.start()
    await scene.mq.enqueue(job, { n: 1 }, { delayMs: 150_000 })
    await scene.clock.advance(149_999)
    expect(ranMs).toEqual([])
    await scene.drain('work')
    expect(ranMs).toEqual([150_000])
    expect(sent).toEqual([60_000, 60_000, 30_000])
    expect(scene.of('deferred').map(({ reason, delayMs }) => [reason, delayMs])).toEqual([
      ['not_due', 90_000],
      ['not_due', 30_000],
    ])
    expect(scene.of('started')).toMatchObject([{ attempt: 1 }])
  })

  it('hops for a retry and for a snooze as well', async () => {
    const scene = await openScene({ driver: (driver) => shortDelays(driver, 1_000) })
    const job = numberedJob({ retry: { maxAttempts: 2, backoff: { maxMs: 3_500, delayMs: () => 3_500 } } })
    const ranMs: number[] = []
    const worker = scene.worker().handle(job, (_, run) => {
      ranMs.push(scene.clock.monotonicMs())
      if (ranMs.length === 1) throw new Error('no')
      if (ranMs.length === 2) run.snooze(2_500)
    })
    await worker.start()
    await scene.mq.enqueue(job, { n: 1 })
    await scene.drain('work')
    expect(ranMs).toEqual([0, 3_500, 6_000])
    expect(scene.of('started').map(({ attempt }) => attempt)).toEqual([1, 2, 2])
    expect(scene.of('succeeded')).toHaveLength(1)
  })

  it('may be as long as a century', async () => {
    const scene = await openScene({ driver: (driver) => shortDelays(driver, 50 * 365 * 24 * 3_600_000) })
    const job = numberedJob()
    let runs = 0
    const worker = scene.worker().handle(job, () => {
      runs++
    })
    const centuryMs = 100 * 365 * 24 * 3_600_000
    await scene.mq.enqueue(job, { n: 1 }, { delayMs: centuryMs })
    await scene.clock.advance(centuryMs - 1_000)
    await worker.start()
    await scene.clock.advance(999)
    expect(runs).toBe(0)
    await scene.clock.advance(1)
    expect(runs).toBe(1)
  })
})
