/** Ordering keys: one at a time, in order, and nobody else waits. */
import { expect, it } from 'vitest'
import { fixed, sleep } from '../src/index.ts'
import { altered, numberedJob, openScene } from './scene.ts'
import { randomOf, seed } from './seed.ts'

it('runs the jobs of one key one at a time and in order, those of other keys beside them', async () => {
  // Only this process keeps the order: the broker delivers all of a key at once.
  const scene = await openScene({
    driver: (driver) =>
      altered(driver, {
        send: (target, batch, signal) =>
          driver.send(
            target,
            batch.map((message) => ({ ...message, ordered: false })),
            signal,
          ),
      }),
  })
  const random = randomOf(seed)
  const job = numberedJob()
  const order = new Map<string, number[]>()
  const running = new Set<string>()
  let together = 0
  const worker = scene.worker({ concurrency: 8, prefetch: 200 }).handle(job, async ({ n }, { headers }) => {
    const key = headers.key!
    expect(running.has(key), `two of key ${key} at once`).toBe(false)
    running.add(key)
    together = Math.max(together, running.size)
    await sleep(scene.clock, 1 + random.below(50))
    running.delete(key)
    order.set(key, [...(order.get(key) ?? []), n])
  })
  await scene.mq.enqueueMany(
    job,
    Array.from({ length: 100 }, (_, n) => ({ n })),
    ({ n }) => ({ orderingKey: `k${n % 5}`, headers: { key: `k${n % 5}` } }),
  )
  await worker.start()
  await scene.drain('work')
  expect(order.size).toBe(5)
  for (const [key, numbers] of order) {
    expect(numbers, key).toEqual(numbers.toSorted((a, b) => a - b))
    expect(numbers).toHaveLength(20)
  }
  expect(together).toBeGreaterThan(1)
})

it('lets the lane go on after every ending: failure, snooze, dead letter, duplicate, deferral', async () => {
  const scene = await openScene()
  const job = numberedJob({
    idempotencyKey: ({ n }) => `key ${n % 10}`,
    fingerprint: ({ n }) => n % 10,
    retry: { maxAttempts: 2, backoff: fixed(700) },
  })
  const worker = scene.worker({ concurrency: 3, prefetch: 40 }).handle(job, ({ n }, run) => {
    if (n % 10 === 1) throw new Error('always')
    if (n % 10 === 2 && run.attempt === 1) throw new Error('once')
    if (n % 10 === 3 && run.failures.length === 0 && snoozed.size < 1) {
      snoozed.add(n)
      run.snooze(1_000)
    }
  })
  const snoozed = new Set<number>()
  await scene.mq.enqueueMany(
    job,
    Array.from({ length: 60 }, (_, n) => ({ n })),
    { orderingKey: 'one lane' },
  )
  await worker.start()
  await scene.drain('work')
  expect(scene.of('succeeded')).toHaveLength(9)
  expect(scene.of('snoozed')).toHaveLength(1)
  const settled = scene.of('succeeded').length + scene.of('deduplicated').length + scene.of('dead_lettered').length
  expect(settled).toBe(60)
  expect((await scene.mq.status('work')).stuck).toMatchObject({ ready: 0, delayed: 0, inFlight: 0, runningHere: 0 })
})
