/** Jobs that come back from a crash: counted, run alone, and dangerous to nobody else. */
import { describe, expect, it } from 'vitest'
import { circuitBreaker, decodeEnvelope, fixed, noInbox, sleep } from '../src/index.ts'
import { during, numberedJob, openScene, type Scene } from './scene.ts'

const claimLeaseMs = 15_000

/** Starts every job of the queue and dies: its deliveries and its claims are left to lapse. */
async function crashOn(scene: Scene, jobs: number, claiming = true): Promise<void> {
  const signal = AbortSignal.timeout(5_000)
  const { driver, inbox } = scene.mq
  await driver.declare({ name: 'work', group: 'default' }, 'create', signal)
  const receiver = await driver.open(
    { name: 'work', group: 'default' },
    { maxUnsettled: jobs, leaseMs: 1_000, onLost: () => {} },
    signal,
  )
  const deliveries = await receiver.receive(jobs, 0, signal)
  expect(deliveries).toHaveLength(jobs)
  if (!claiming) return void (await scene.clock.advance(1_000))
  const requests = deliveries.map(({ body }) => {
    const { name, idempotency_key: key, job_id: jobId, replay, attempt } = decodeEnvelope(body)
    return { scope: `default/${name}`, key, fingerprint: '', jobId, replay, attempt }
  })
  const answers = await inbox!.claim(requests, { leaseMs: claimLeaseMs, retentionMs: 1e9 }, signal)
  for (const { status } of answers) expect(status).toBe('claimed')
  await scene.clock.advance(claimLeaseMs)
}

describe('a job whose start was lost in a crash', () => {
  it('has that start counted, and no more than maxAttempts starts over all crashes', async () => {
    const scene = await openScene()
    const job = numberedJob({ retry: { maxAttempts: 3, backoff: fixed(100) } })
    await scene.mq.enqueue(job, { n: 1 })
    for (let crash = 0; crash < 3; crash++) await crashOn(scene, 1)
    const worker = scene.worker({ claimLeaseMs }).handle(job, () => {
      throw new Error('never called')
    })
    await worker.start()
    await scene.drain('work')
    expect(scene.of('started')).toEqual([])
    const [letter] = await scene.dead('work')
    expect(letter).toMatchObject({ reason: 'exhausted', error: 'Crashed', envelope: { attempt: 3 } })
    // Replayed, it has all its attempts again.
    await scene.mq.deadLetters('work').replay()
    await scene.drain('work')
    expect(scene.of('started').map(({ attempt }) => attempt)).toEqual([1, 2, 3])
  })

  it('continues its count where the crash left it', async () => {
    const scene = await openScene()
    const job = numberedJob()
    await scene.mq.enqueue(job, { n: 1 })
    await crashOn(scene, 1)
    const worker = scene.worker({ claimLeaseMs }).handle(job, () => {})
    await worker.start()
    await scene.drain('work')
    expect(scene.of('started').map(({ attempt }) => attempt)).toEqual([2])
    expect(scene.of('succeeded')).toHaveLength(1)
  })

  it('runs alone: nothing starts beside it, it starts beside nothing, one after another', async () => {
    const scene = await openScene()
    const job = numberedJob()
    await scene.mq.enqueueMany(job, [{ n: 0 }, { n: 1 }, { n: 2 }])
    await crashOn(scene, 3)
    await scene.mq.enqueueMany(
      job,
      Array.from({ length: 10 }, (_, i) => ({ n: 10 + i })),
    )
    const running = new Set<number>()
    const wrong: string[] = []
    const worker = scene.worker({ claimLeaseMs, concurrency: 8, prefetch: 32 }).handle(job, async ({ n }) => {
      const suspects = [...running, n].filter((m) => m < 3)
      if (suspects.length > 0 && running.size > 0) wrong.push(`${n} beside ${[...running]}`)
      running.add(n)
      await sleep(scene.clock, 1_000)
      running.delete(n)
    })
    await worker.start()
    await scene.drain('work')
    expect(wrong).toEqual([])
    expect(scene.of('succeeded')).toHaveLength(13)
    const attempts = scene.of('started').map(({ attempt }) => attempt)
    expect(attempts.toSorted()).toEqual([...Array.from({ length: 10 }, () => 1), 2, 2, 2])
  })

  it('is no reason to stand still: after five seconds others run beside it, and it beside them', async () => {
    const scene = await openScene()
    const job = numberedJob({ timeoutMs: 120_000 })
    await scene.mq.enqueueMany(job, [{ n: 0 }, { n: 1 }])
    await crashOn(scene, 2)
    const startsMs = new Map<number, number>()
    const worker = scene.worker({ claimLeaseMs, concurrency: 4 }).handle(job, async ({ n }) => {
      startsMs.set(n, scene.clock.monotonicMs() - startedAtMs)
      await sleep(scene.clock, n === 5 ? 0 : 60_000)
    })
    const startedAtMs = scene.clock.monotonicMs()
    await worker.start()
    await scene.clock.advance(1_000)
    await scene.mq.enqueue(job, { n: 5 })
    await scene.drain('work')
    expect(startsMs.get(5)).toBeGreaterThanOrEqual(5_000)
    expect(startsMs.get(5)).toBeLessThan(7_000)
    const suspects = [startsMs.get(0)!, startsMs.get(1)!].toSorted((a, b) => a - b)
    expect(suspects[0]).toBeLessThan(1_000)
    // The second waits for the first to end: two killers at once could not be told apart.
    expect(suspects[1]).toBeGreaterThanOrEqual(60_000)
  })

  it('waits for its circuit like any other', async () => {
    const scene = await openScene()
    const circuit = circuitBreaker({ name: 'c', windowCalls: 2, cooldownMs: 30_000 })
    const job = numberedJob({ circuit })
    await scene.mq.enqueue(job, { n: 1 })
    await crashOn(scene, 1)
    for (let i = 0; i < 2; i++) circuit.tryStart(scene.clock)!.end('failure', scene.clock)
    expect(circuit.state).toBe('open')
    const openedAtMs = scene.clock.monotonicMs()
    const startsMs: number[] = []
    const worker = scene.worker({ claimLeaseMs }).handle(job, () => {
      startsMs.push(scene.clock.monotonicMs() - openedAtMs)
    })
    await worker.start()
    await scene.drain('work')
    expect(startsMs).toHaveLength(1)
    expect(startsMs[0]).toBeGreaterThanOrEqual(30_000)
    expect(scene.of('started')).toMatchObject([{ attempt: 2 }])
  })

  it('keeps the attempts of the neighbours it was prefetched with', async () => {
    const scene = await openScene()
    const job = numberedJob()
    await scene.mq.enqueue(job, { n: 0 })
    await crashOn(scene, 1)
    await scene.mq.enqueueMany(
      job,
      Array.from({ length: 50 }, (_, i) => ({ n: i + 1 })),
    )
    const worker = scene.worker({ claimLeaseMs, concurrency: 10, prefetch: 60 }).handle(job, () => {})
    await worker.start()
    await scene.drain('work')
    expect(scene.of('succeeded')).toHaveLength(51)
    expect(scene.of('started').filter(({ attempt }) => attempt !== 1)).toHaveLength(1)
  })
})

describe('without an inbox', () => {
  it('the broker counts the starts: no more than maxAttempts over all crashes', async () => {
    const scene = await openScene()
    const job = numberedJob({ retry: { maxAttempts: 3, backoff: fixed(100) } })
    await scene.mq.enqueueMany(job, [{ n: 1 }, { n: 2 }])
    await crashOn(scene, 2, false)
    await crashOn(scene, 2, false)
    const seen: number[] = []
    const worker = scene.worker({ inbox: noInbox() }).handle(job, ({ n }, { attempt }) => {
      seen.push(n * 10 + attempt)
      if (n === 2) throw new Error('and now this')
    })
    await worker.start()
    await scene.drain('work')
    expect(seen.toSorted()).toEqual([13, 23])
    expect(await scene.dead('work')).toMatchObject([
      { reason: 'exhausted', envelope: { payload: { n: 2 }, attempt: 3 } },
    ])
  })

  it('what crashed maxAttempts times is dead-lettered unstarted', async () => {
    const scene = await openScene()
    const job = numberedJob({ retry: { maxAttempts: 2, backoff: fixed(100) } })
    await scene.mq.enqueue(job, { n: 1 })
    for (let crash = 0; crash < 2; crash++) await crashOn(scene, 1, false)
    const worker = scene.worker({ inbox: noInbox() }).handle(job, () => {})
    await worker.start()
    await scene.drain('work')
    expect(scene.of('started')).toEqual([])
    expect(await scene.dead('work')).toMatchObject([{ reason: 'exhausted', error: 'Crashed' }])
  })

  it('a drain or a release uses no attempt there either', async () => {
    const scene = await openScene()
    const job = numberedJob({ retry: { maxAttempts: 2, backoff: fixed(100) } })
    await scene.mq.enqueueMany(job, [{ n: 1 }, { n: 2 }, { n: 3 }])
    for (let round = 0; round < 3; round++) {
      const worker = scene
        .worker({ inbox: noInbox(), concurrency: 1, prefetch: 3 })
        .handle(job, async (_, { signal }) => {
          await sleep(scene.clock, 5_000, signal)
          signal.throwIfAborted()
        })
      await worker.start()
      await scene.clock.advance(100)
      await during(scene.clock, worker.stop({ drainMs: 0 }))
    }
    const worker = scene.worker({ inbox: noInbox() }).handle(job, () => {})
    await worker.start()
    await scene.drain('work')
    expect(scene.of('succeeded').map(({ attempt }) => attempt)).toEqual([1, 1, 1])
  })
})
