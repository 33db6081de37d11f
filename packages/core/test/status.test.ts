/** `mq.status`: stuck, failing, next. */
import { expect, it } from 'vitest'
import { circuitBreaker, fixed, PermanentError, sleep } from '../src/index.ts'
import { numberedJob, openScene } from './scene.ts'

it('answers for a queue nobody has used', async () => {
  const scene = await openScene()
  expect(await scene.mq.status('work')).toEqual({
    queue: 'work',
    group: 'default',
    stuck: { ready: 0, delayed: 0, inFlight: 0, runningHere: 0 },
    failing: { dead: 0, groups: [], groupsComplete: true },
    next: { circuits: [], resumeInMs: 0, exhausted: 'dead letters of work' },
  })
})

it('says where it is stuck, how many fail and what happens next', async () => {
  const scene = await openScene()
  const circuit = circuitBreaker({ name: 'provider' })
  const job = numberedJob({ circuit, retry: { maxAttempts: 2, backoff: fixed(40_000) }, timeoutMs: 60_000 })
  const worker = scene.worker({ concurrency: 1, prefetch: 2 }).handle(job, async ({ n }) => {
    if (n === 0) throw new PermanentError('no')
    if (n === 1) throw new TypeError('later')
    await sleep(scene.clock, 30_000)
  })
  await worker.start()
  for (let n = 0; n < 5; n++) await scene.mq.enqueue(job, { n })
  await scene.clock.advance(5_000)
  const status = await scene.mq.status('work')
  expect(status).toMatchObject({
    stuck: {
      ready: 1,
      delayed: 1,
      inFlight: 2,
      oldestReadyAgeMs: 5_000,
      oldestInFlightAgeMs: 5_000,
      runningHere: 1,
    },
    failing: { dead: 1, groups: [{ error: 'PermanentError', count: 1 }], retryRatio: 0 },
    next: { nextAttemptInMs: 35_000, circuits: [{ name: 'provider', state: 'closed', retryInMs: 0 }], resumeInMs: 0 },
  })
  await scene.drain('work')
  const after = await scene.mq.status('work')
  expect(after.stuck).toEqual({ ready: 0, delayed: 0, inFlight: 0, runningHere: 0 })
  expect(after.failing).toMatchObject({ dead: 2, retryRatio: 1 / 6 })
  expect(after.failing.groups).toHaveLength(2)
})

it('tells groups apart', async () => {
  const scene = await openScene()
  const job = numberedJob()
  const worker = scene.worker({ group: 'mail' }).handle(job, () => {
    throw new PermanentError('no mail')
  })
  await worker.start()
  await scene.mq.enqueue(job, { n: 1 })
  await scene.clock.advance(10)
  expect((await scene.mq.status('work', { group: 'mail' })).failing.dead).toBe(1)
  expect((await scene.mq.status('work', { group: 'mail' })).next.exhausted).toBe('dead letters of work (mail)')
  expect((await scene.mq.status('work')).failing.dead).toBe(0)
})
