/** What a handler that takes too long gets, and what becomes of its job. */
import { expect, it } from 'vitest'
import { PermanentError, sleep } from '../src/index.ts'
import { gate, numberedJob, openScene } from './scene.ts'

it('aborts the signal at the timeout, exactly then, and retries the job as a timeout', async () => {
  const scene = await openScene()
  const job = numberedJob({ timeoutMs: 3_000, retry: { maxAttempts: 1 } })
  const aborted: unknown[] = []
  const worker = scene.worker().handle(
    job,
    (_, { signal }) =>
      new Promise((_, reject) => {
        const startedAtMs = scene.clock.monotonicMs()
        signal.addEventListener('abort', () => {
          aborted.push([scene.clock.monotonicMs() - startedAtMs, (signal.reason as { code: string }).code])
          reject(new Error('aborted by a library'))
        })
      }),
  )
  await scene.mq.enqueue(job, { n: 1 })
  await worker.start()
  await scene.drain('work')
  expect(aborted).toEqual([[3_000, 'TIMEOUT']])
  // The cause is the timeout, whatever the library called it.
  expect(scene.of('failed').map(({ error, durationMs }) => [(error as { code?: string }).code, durationMs])).toEqual([
    ['TIMEOUT', 3_000],
  ])
  expect(await scene.dead('work')).toMatchObject([{ reason: 'exhausted', error: 'IdemqError' }])
})

it('counts a success after the timeout as the success it is', async () => {
  const scene = await openScene()
  const job = numberedJob({ timeoutMs: 1_000 })
  const worker = scene.worker({ graceMs: 5_000 }).handle(job, async () => {
    await sleep(scene.clock, 4_000)
  })
  await scene.mq.enqueue(job, { n: 1 })
  await worker.start()
  await scene.drain('work')
  expect(scene.of('succeeded').map(({ durationMs }) => durationMs)).toEqual([4_000])
  expect(scene.of('failed')).toEqual([])
})

it('takes a PermanentError after the timeout for what it says', async () => {
  const scene = await openScene()
  const job = numberedJob({ timeoutMs: 1_000 })
  const worker = scene.worker().handle(job, async () => {
    await sleep(scene.clock, 2_000)
    throw new PermanentError('card declined, at last')
  })
  await scene.mq.enqueue(job, { n: 1 })
  await worker.start()
  await scene.drain('work')
  expect(await scene.dead('work')).toMatchObject([{ reason: 'permanent', error: 'PermanentError' }])
})

it('keeps the claim of a deaf handler until the grace is over, then retries it elsewhere', async () => {
  const scene = await openScene()
  const job = numberedJob({ timeoutMs: 20_000 })
  const deaf = gate()
  const startsMs: number[] = []
  const worker = scene.worker({ graceMs: 5_000, claimLeaseMs: 3_000, leaseMs: 9_000 }).handle(job, (_, { attempt }) => {
    startsMs.push(scene.clock.monotonicMs())
    return attempt === 1 ? deaf.opened : undefined
  })
  await scene.mq.enqueue(job, { n: 1 })
  await worker.start()
  await scene.clock.advance(24_999)
  expect(startsMs).toEqual([0])
  await scene.drain('work')
  expect(scene.of('retry_scheduled')).toMatchObject([{ delayMs: 1_000 }])
  expect(startsMs).toEqual([0, 26_000])
  expect(scene.of('succeeded')).toMatchObject([{ attempt: 2 }])
  // What it says in the end is nobody's business any more.
  deaf.open()
  await scene.clock.advance(60_000)
  expect(scene.of('succeeded')).toHaveLength(1)
  expect(scene.of('claim_lost')).toEqual([])
})

it('frees the slot of a deaf handler after the grace, not before', async () => {
  const scene = await openScene()
  const job = numberedJob({ timeoutMs: 1_000, retry: { maxAttempts: 1 } })
  const startsMs: number[] = []
  const worker = scene.worker({ concurrency: 1, graceMs: 2_000 }).handle(job, () => {
    startsMs.push(scene.clock.monotonicMs())
    return new Promise(() => {})
  })
  await scene.mq.enqueueMany(job, [{ n: 1 }, { n: 2 }, { n: 3 }])
  await worker.start()
  await scene.drain('work')
  expect(startsMs).toEqual([0, 3_000, 6_000])
  expect(await scene.dead('work')).toHaveLength(3)
  expect((await scene.mq.status('work')).stuck).toMatchObject({ runningHere: 0, inFlight: 0 })
})

it('keeps a job that runs far longer than its leases', async () => {
  const scene = await openScene()
  const job = numberedJob({ timeoutMs: 400_000 })
  const worker = scene.worker({ leaseMs: 30_000, claimLeaseMs: 15_000 }).handle(job, async () => {
    await sleep(scene.clock, 300_000)
  })
  const rival = scene.worker({ leaseMs: 30_000, claimLeaseMs: 15_000 }).handle(job, () => {
    throw new Error('nobody else may run it')
  })
  await scene.mq.enqueue(job, { n: 1 })
  await worker.start()
  await scene.clock.advance(1)
  await rival.start()
  await scene.drain('work')
  expect(scene.of('started')).toHaveLength(1)
  expect(scene.of('succeeded')).toHaveLength(1)
})

it('includes an asynchronous schema in the timeout', async () => {
  const scene = await openScene()
  const job = numberedJob({
    timeoutMs: 1_000,
    retry: { maxAttempts: 1 },
    payload: {
      '~standard': {
        version: 1,
        vendor: 'test',
        validate: async (value) => {
          if (started) await new Promise(() => {})
          return { value: value as { n: number } }
        },
      },
    },
  })
  let started = false
  let called = 0
  const worker = scene.worker({ graceMs: 1_000 }).handle(job, () => {
    called++
  })
  await scene.mq.enqueue(job, { n: 1 })
  started = true
  await worker.start()
  await scene.drain('work')
  expect(called).toBe(0)
  expect(await scene.dead('work')).toHaveLength(1)
})
