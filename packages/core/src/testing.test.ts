import { expect, it } from 'vitest'
import { numberedJob } from '../test/scene.ts'
import { fixed } from './policy/backoff.ts'
import { testQueue } from './testing.ts'

it('runs the worker of production on a clock that stands still until the test moves it', async () => {
  const { mq, clock, drain, close } = await testQueue()
  const job = numberedJob({ retry: { maxAttempts: 3, backoff: fixed(3_600_000) } })
  const attempts: [number, number][] = []
  const worker = mq.worker().handle(job, (_, { attempt }) => {
    attempts.push([attempt, clock.monotonicMs()])
    if (attempt < 3) throw new Error('not yet')
  })
  await worker.start()
  await mq.enqueue(job, { n: 1 }, { delayMs: 60_000 })
  const realMs = performance.now()
  await drain('work')
  expect(attempts).toEqual([
    [1, 60_000],
    [2, 60_000 + 3_600_000],
    [3, 60_000 + 2 * 3_600_000],
  ])
  expect(performance.now() - realMs).toBeLessThan(10_000)
  await close()
  await expect(mq.enqueue(job, { n: 2 })).rejects.toMatchObject({ code: 'CLOSED' })
})

it('gives up draining after the time it was told, and drains nothing without a worker', async () => {
  const { mq, clock, drain, close } = await testQueue()
  await mq.enqueue(numberedJob(), { n: 1 }, { delayMs: 10_000 })
  await drain('work', 5_000)
  expect(clock.monotonicMs()).toBe(5_000)
  await drain('work', 60_000)
  expect((await mq.status('work')).stuck).toMatchObject({ ready: 1, delayed: 0 })
  await close()
})

it('gives every test a queue of its own', async () => {
  const [one, two] = await Promise.all([testQueue(), testQueue()])
  await one.mq.enqueue(numberedJob(), { n: 1 })
  expect((await two.mq.status('work')).stuck.ready).toBe(0)
  await one.clock.advance(1_000)
  expect(two.clock.monotonicMs()).toBe(0)
  await Promise.all([one.close(), two.close()])
})
