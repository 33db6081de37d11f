/** When a failed job runs again, and when it does not. */
import { describe, expect, it, vi } from 'vitest'
import {
  exponential,
  fixed,
  type JobContext,
  PermanentError,
  RetryAfterError,
  retryBudget,
  type WorkerOptions,
} from '../src/index.ts'
import { type Numbered, numberedJob, openScene, type Scene } from './scene.ts'

/** Runs one job with `handler`; returns the scene and when each start was, in milliseconds since the first. */
async function runOne(
  job: ReturnType<typeof numberedJob>,
  handler: (payload: Numbered, job: JobContext) => unknown,
  options?: WorkerOptions,
): Promise<{ scene: Scene; startsMs: number[] }> {
  const scene = await openScene()
  const startsAt: number[] = []
  const worker = scene.worker(options).handle(job, (payload, context) => {
    startsAt.push(scene.clock.monotonicMs())
    return handler(payload, context)
  })
  await scene.mq.enqueue(job, { n: 1 })
  await worker.start()
  await scene.drain('work')
  return { scene, startsMs: startsAt.map((at) => at - startsAt[0]!) }
}

describe('retry', () => {
  it('follows the backoff to the millisecond and dead-letters after exactly maxAttempts starts', async () => {
    const random = vi.spyOn(Math, 'random').mockReturnValue(0.5)
    try {
      const job = numberedJob({
        retry: { maxAttempts: 4, backoff: exponential({ baseMs: 1_000, maxMs: 60_000, minMs: 0 }) },
      })
      const { scene, startsMs } = await runOne(job, () => {
        throw new TypeError('fetch failed')
      })
      expect(startsMs).toEqual([0, 500, 500 + 1_000, 500 + 1_000 + 2_000])
      expect(scene.of('started').map(({ attempt }) => attempt)).toEqual([1, 2, 3, 4])
      expect(scene.of('retry_scheduled').map(({ delayMs, overBudget }) => [delayMs, overBudget])).toEqual([
        [500, false],
        [1_000, false],
        [2_000, false],
      ])
      expect(scene.of('failed').map(({ permanent }) => permanent)).toEqual([false, false, false, false])
      const [letter, ...others] = await scene.dead('work')
      expect(others).toEqual([])
      expect(letter).toMatchObject({ reason: 'exhausted', error: 'TypeError', message: 'fetch failed' })
      expect(letter!.envelope!.attempt).toBe(4)
      expect(letter!.envelope!.failures!.map(({ attempt, class: c, name }) => [attempt, c, name])).toEqual(
        [1, 2, 3, 4].map((attempt) => [attempt, 'transient', 'TypeError']),
      )
    } finally {
      random.mockRestore()
    }
  })

  it('with maxAttempts 1 never retries', async () => {
    const job = numberedJob({ retry: { maxAttempts: 1 } })
    const { scene, startsMs } = await runOne(job, () => {
      throw new Error('no')
    })
    expect(startsMs).toEqual([0])
    expect((await scene.dead('work')).map(({ reason }) => reason)).toEqual(['exhausted'])
  })

  it('keeps only the last five failures and bounds what they say', async () => {
    const job = numberedJob({ retry: { maxAttempts: 8, backoff: fixed(10) } })
    const { scene } = await runOne(job, () => {
      throw new Error(`\u0000${'"'.repeat(5_000)}\ud800`)
    })
    const [letter] = await scene.dead('work')
    const failures = letter!.envelope!.failures!
    expect(failures.map(({ attempt }) => attempt)).toEqual([4, 5, 6, 7, 8])
    for (const { message } of failures) {
      expect(message.length).toBe(500)
      expect(message.startsWith(' "')).toBe(true)
    }
  })

  it('shows the handler its attempt and earlier failures', async () => {
    const seen: unknown[] = []
    await runOne(numberedJob(), (_, job) => {
      seen.push([job.attempt, job.failures.map(({ message }) => message)])
      throw new Error(`failure ${job.attempt}`)
    })
    expect(seen).toEqual([
      [1, []],
      [2, ['failure 1']],
      [3, ['failure 1', 'failure 2']],
    ])
  })

  it('waits as long as the dependency asked, where that is longer than the backoff', async () => {
    const waits = [90_000, 10]
    const { startsMs } = await runOne(numberedJob(), () => {
      throw new RetryAfterError(waits.shift()!)
    })
    expect(startsMs).toEqual([0, 90_000, 91_000])
  })

  it.each([Number.NaN, -5, Number.POSITIVE_INFINITY])(
    'takes a Retry-After of %s for none: it is what unparsed headers become',
    async (retryAfterMs) => {
      const { scene, startsMs } = await runOne(numberedJob(), () => {
        throw new RetryAfterError(retryAfterMs)
      })
      expect(startsMs).toEqual([0, 1_000, 2_000])
      expect(await scene.dead('work')).toHaveLength(1)
    },
  )

  it('dead-letters at once what is permanent: PermanentError, a 4xx, or what classify says', async () => {
    const errors = [
      new PermanentError('card declined'),
      Object.assign(new Error('not found'), { status: 404 }),
      new RangeError('as classify says'),
    ]
    for (const error of errors) {
      const job = numberedJob({ classify: (e) => (e instanceof RangeError ? 'permanent' : undefined) })
      const { scene, startsMs } = await runOne(job, () => {
        throw error
      })
      expect(startsMs).toEqual([0])
      const [letter] = await scene.dead('work')
      expect(letter).toMatchObject({ reason: 'permanent', error: error.name, message: error.message })
      expect(letter!.envelope!.failures).toMatchObject([{ attempt: 1, class: 'permanent' }])
      expect(scene.of('failed').map(({ permanent }) => permanent)).toEqual([true])
    }
  })

  it('stretches to the longest backoff when the budget is empty, and buries nothing', async () => {
    const job = numberedJob({
      retry: { maxAttempts: 3, backoff: exponential({ baseMs: 1_000, maxMs: 30_000 }) },
      budget: retryBudget({ ratio: 0, minPerSecond: 0 }),
    })
    const { scene, startsMs } = await runOne(job, (_, { attempt }) => {
      if (attempt < 3) throw new Error('not yet')
    })
    expect(startsMs).toEqual([0, 30_000, 60_000])
    expect(scene.of('retry_scheduled').map(({ overBudget }) => overBudget)).toEqual([true, true])
    expect(scene.of('succeeded')).toHaveLength(1)
    expect(await scene.dead('work')).toEqual([])
  })

  it('has a shared budget slow down a storm but let every job end', async () => {
    const scene = await openScene()
    const job = numberedJob({
      retry: { maxAttempts: 2, backoff: exponential({ baseMs: 100, maxMs: 20_000 }) },
      budget: retryBudget({ ratio: 0, minPerSecond: 1 }),
    })
    const worker = scene.worker({ concurrency: 50, prefetch: 200 }).handle(job, (_, { attempt }) => {
      if (attempt === 1) throw new Error('down')
    })
    await scene.mq.enqueueMany(
      job,
      Array.from({ length: 100 }, (_, n) => ({ n })),
    )
    await worker.start()
    await scene.drain('work')
    expect(scene.of('succeeded')).toHaveLength(100)
    // Ten seconds' worth of one a second were free, all others waited for the cap.
    expect(scene.of('retry_scheduled').filter(({ overBudget }) => overBudget)).toHaveLength(90)
  })

  it('turns anything that is thrown into a failure', async () => {
    const nameless = Object.assign(new Error('x'), { name: undefined, message: 42 })
    const hostile = new Error('x')
    Object.defineProperty(hostile, 'message', {
      get() {
        throw new Error('gotcha')
      },
    })
    for (const thrown of [
      'text',
      undefined,
      null,
      7,
      Symbol('s'),
      Object.create(null),
      { code: 1 },
      nameless,
      hostile,
    ]) {
      const { scene, startsMs } = await runOne(numberedJob(), () => {
        throw thrown
      })
      expect(startsMs).toEqual([0, 1_000, 2_000])
      const [letter, ...others] = await scene.dead('work')
      expect(others).toEqual([])
      expect(letter!.reason).toBe('exhausted')
      expect(letter!.envelope!.failures).toHaveLength(3)
    }
  })

  it('survives a classify, backoff or budget that throws: the failure counts as transient, no slot is lost', async () => {
    const boom = (): never => {
      throw new Error('policy is broken')
    }
    const broken = [
      numberedJob({ classify: boom, retry: { maxAttempts: 2, backoff: fixed(1_000) } }),
      numberedJob({ retry: { maxAttempts: 2, backoff: { maxMs: 1_000, delayMs: boom } } }),
      numberedJob({ retry: { maxAttempts: 2, backoff: { maxMs: 1_000, delayMs: () => Number.NaN } } }),
    ]
    for (const job of broken) {
      const scene = await openScene()
      let calls = 0
      const worker = scene.worker({ concurrency: 1 }).handle(job, () => {
        calls++
        throw new Error('no')
      })
      await scene.mq.enqueueMany(job, [{ n: 1 }, { n: 2 }, { n: 3 }])
      await worker.start()
      await scene.drain('work')
      expect(await scene.dead('work')).toHaveLength(3)
      expect(calls).toBe(6)
    }
  })
})

describe('snooze', () => {
  let snoozes = 0

  it('comes back without using an attempt', async () => {
    const { scene, startsMs } = await runOne(numberedJob(), (_, job) => {
      if (snoozes++ < 5) job.snooze(60_000)
    })
    expect(startsMs).toEqual([0, 60_000, 120_000, 180_000, 240_000, 300_000])
    expect(scene.of('started').map(({ attempt }) => attempt)).toEqual([1, 1, 1, 1, 1, 1])
    expect(scene.of('snoozed')).toHaveLength(5)
    expect(scene.of('succeeded')).toHaveLength(1)
  })

  it('of 0 ms comes back at once, and an attempt that failed before still counts', async () => {
    let calls = 0
    const { scene } = await runOne(numberedJob(), (_, job) => {
      calls++
      if (calls === 1) throw new Error('first')
      if (calls <= 3) job.snooze(0)
    })
    expect(scene.of('started').map(({ attempt }) => attempt)).toEqual([1, 2, 2, 2])
    expect(scene.of('succeeded')).toHaveLength(1)
  })

  it('does not hide an error thrown after it', async () => {
    const { scene } = await runOne(numberedJob(), (_, job) => {
      job.snooze(1_000)
      throw new Error('after snooze')
    })
    expect(scene.of('started')).toHaveLength(3)
    expect((await scene.dead('work')).map(({ message }) => message)).toEqual(['after snooze'])
  })

  it.each([-1, Number.NaN, Number.POSITIVE_INFINITY])('of %s ms is refused', async (delayMs) => {
    const { scene } = await runOne(numberedJob({ retry: { maxAttempts: 1 } }), (_, job) => job.snooze(delayMs))
    expect((await scene.dead('work'))[0]?.message).toContain('job.snooze')
  })
})
