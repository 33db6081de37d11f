/** One key, many copies: one runs, the others settle with it. */
import { describe, expect, it } from 'vitest'
import { z } from 'zod'
import { defineJob, fixed, sleep } from '../src/index.ts'
import { gate, numberedJob, openScene } from './scene.ts'

const notify = defineJob('notify', {
  queue: 'work',
  payload: z.object({ to: z.string() }),
  idempotencyKey: ({ to }) => `notify:${to}`,
  retry: { maxAttempts: 3, backoff: fixed(1_000) },
})

describe('duplicates in one process', () => {
  it('run once: of 50 at a time one runs and 49 are deduplicated, without asking the inbox again and again', async () => {
    const scene = await openScene()
    let runs = 0
    const worker = scene.worker({ concurrency: 50, prefetch: 100 }).handle(notify, async () => {
      runs++
      await sleep(scene.clock, 5_000)
    })
    await scene.mq.enqueueMany(
      notify,
      Array.from({ length: 50 }, () => ({ to: 'ann' })),
    )
    await worker.start()
    await scene.drain('work')
    expect(runs).toBe(1)
    expect(scene.of('deduplicated')).toHaveLength(49)
    expect(scene.of('deferred')).toEqual([])
    expect(await scene.dead('work')).toEqual([])
  })

  it('beyond the concurrency are deferred without using an attempt, and deduplicated in the end', async () => {
    const scene = await openScene()
    let runs = 0
    const worker = scene.worker({ concurrency: 4 }).handle(notify, async (_, { attempt }) => {
      runs++
      expect(attempt).toBe(1)
      await sleep(scene.clock, 5_000)
    })
    await scene.mq.enqueueMany(
      notify,
      Array.from({ length: 50 }, () => ({ to: 'ann' })),
    )
    await worker.start()
    await scene.drain('work')
    expect(runs).toBe(1)
    expect(scene.of('deduplicated')).toHaveLength(49)
    expect(scene.of('deferred').every(({ reason }) => reason === 'busy')).toBe(true)
  })

  it('leave room for other keys while one takes long', async () => {
    const scene = await openScene()
    const done: string[] = []
    const worker = scene.worker({ concurrency: 2 }).handle(notify, async ({ to }) => {
      await sleep(scene.clock, to === 'slow' ? 20_000 : 100)
      done.push(to)
    })
    await scene.mq.enqueueMany(notify, [
      ...Array.from({ length: 30 }, () => ({ to: 'slow' })),
      ...Array.from({ length: 10 }, (_, n) => ({ to: `quick ${n}` })),
    ])
    await worker.start()
    await scene.clock.advance(10_000)
    expect(done).toHaveLength(10)
    await scene.drain('work')
    expect(done).toHaveLength(11)
  })

  it('share one series of attempts: a key that always fails starts maxAttempts times per job that is not its copy', async () => {
    const scene = await openScene()
    let runs = 0
    const worker = scene.worker({ concurrency: 10 }).handle(notify, () => {
      runs++
      throw new Error('down')
    })
    await scene.mq.enqueueMany(
      notify,
      Array.from({ length: 5 }, () => ({ to: 'ann' })),
    )
    await worker.start()
    await scene.drain('work')
    const letters = await scene.dead('work')
    expect(letters).toHaveLength(5)
    expect(new Set(letters.map(({ reason }) => reason))).toEqual(new Set(['exhausted']))
    expect(runs).toBeGreaterThanOrEqual(3)
    expect(runs).toBeLessThanOrEqual(15)
    for (const { envelope } of letters) expect(envelope!.attempt).toBe(3)
  })

  it('follow a leader that succeeds at its second attempt', async () => {
    const scene = await openScene()
    let runs = 0
    const worker = scene.worker({ concurrency: 10 }).handle(notify, (_, { attempt }) => {
      runs++
      if (attempt === 1) throw new Error('once')
    })
    await scene.mq.enqueueMany(
      notify,
      Array.from({ length: 8 }, () => ({ to: 'ann' })),
    )
    await worker.start()
    await scene.drain('work')
    expect(runs).toBe(2)
    expect(scene.of('succeeded')).toHaveLength(1)
    expect(scene.of('deduplicated')).toHaveLength(7)
    // They come back when the leader does, and not again and again before.
    const deferred = scene.of('deferred').map(({ delayMs }) => delayMs)
    expect(deferred.length).toBeLessThan(20)
    expect(Math.min(...deferred)).toBeGreaterThanOrEqual(25)
  })

  it('with another payload do not ride along: they are refused as a mismatch', async () => {
    const scene = await openScene()
    const job = numberedJob({ idempotencyKey: () => 'one key' })
    const held = gate()
    const worker = scene.worker({ concurrency: 10 }).handle(job, () => held.opened)
    await scene.mq.enqueueMany(job, [{ n: 1 }, { n: 1 }, { n: 2 }])
    await worker.start()
    await scene.clock.advance(10)
    held.open()
    await scene.drain('work')
    expect(scene.of('succeeded')).toHaveLength(1)
    expect(scene.of('deduplicated')).toHaveLength(1)
    expect(await scene.dead('work')).toMatchObject([{ reason: 'key_mismatch', envelope: { payload: { n: 2 } } }])
  })
})

describe('duplicates in other processes', () => {
  it('are deferred without using an attempt while one runs, then deduplicated', async () => {
    const scene = await openScene()
    let runs = 0
    const workers = [1, 2, 3].map(() =>
      scene.worker({ concurrency: 1, prefetch: 2 }).handle(notify, async () => {
        runs++
        await sleep(scene.clock, 8_000)
      }),
    )
    await scene.mq.enqueueMany(
      notify,
      Array.from({ length: 6 }, () => ({ to: 'ann' })),
    )
    await Promise.all(workers.map((worker) => worker.start()))
    await scene.drain('work')
    expect(runs).toBe(1)
    expect(scene.of('succeeded')).toHaveLength(1)
    expect(scene.of('deduplicated')).toHaveLength(5)
    expect(await scene.dead('work')).toEqual([])
    // Pauses grow: two workers that hold a duplicate each for 8 seconds do not ask hundreds of times.
    expect(scene.of('deferred').length).toBeLessThan(100)
  })

  it('after completion are acked, for as long as the inbox remembers, whatever their job id', async () => {
    const scene = await openScene()
    let runs = 0
    const worker = scene.worker({ retentionMs: 60_000 }).handle(notify, () => {
      runs++
    })
    await worker.start()
    const first = await scene.mq.enqueue(notify, { to: 'ann' })
    await scene.drain('work')
    const second = await scene.mq.enqueue(notify, { to: 'ann' })
    const repeat = await scene.mq.enqueue(notify, { to: 'ann' }, { jobId: first.jobId })
    await scene.drain('work')
    expect(second.jobId).not.toBe(first.jobId)
    expect(repeat).toEqual(first)
    expect(runs).toBe(1)
    await scene.clock.advance(61_000)
    await scene.mq.enqueue(notify, { to: 'ann' })
    await scene.drain('work')
    expect(runs).toBe(2)
  })
})
