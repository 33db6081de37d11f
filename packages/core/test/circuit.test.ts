/** What a worker does while a dependency is sick. */
import { describe, expect, it } from 'vitest'
import { type Circuit, circuitBreaker, fixed, PermanentError, sleep } from '../src/index.ts'
import { type Numbered, numberedJob, openScene, type Scene } from './scene.ts'

const breaker = (options: { name?: string; cooldownMs?: number } = {}): Circuit =>
  circuitBreaker({ name: 'provider', windowCalls: 4, failureRatio: 0.5, cooldownMs: 10_000, ...options })
const many = (count: number): Numbered[] => Array.from({ length: count }, (_, n) => ({ n }))
const patient = { maxAttempts: 20, backoff: fixed(500) }

async function enqueue(scene: Scene, job: ReturnType<typeof numberedJob>, count: number): Promise<void> {
  await scene.mq.enqueueMany(job, many(count))
}

describe('a circuit that covers every handler of the queue', () => {
  it('pauses the queue: nothing starts, no attempt is used, and it recovers by one probe and a ramp', async () => {
    const scene = await openScene()
    const job = numberedJob({ circuit: breaker(), retry: patient })
    let sick = true
    let running = 0
    const together: number[] = []
    const worker = scene.worker({ concurrency: 8, prefetch: 64 }).handle(job, async () => {
      together.push(++running)
      await sleep(scene.clock, 100)
      running--
      if (sick) throw new Error('503')
    })
    await enqueue(scene, job, 200)
    await worker.start()
    await scene.clock.advance(5_000)
    const startsWhileSick = scene.of('started').length
    expect(startsWhileSick).toBeGreaterThanOrEqual(4)
    // What runs already, and what starts in the places of the first to fail.
    expect(startsWhileSick).toBeLessThanOrEqual(8 + 4)
    expect(scene.of('circuit_opened')).toMatchObject([{ circuit: 'provider', queue: 'work' }])
    expect(scene.of('paused').length).toBeGreaterThanOrEqual(1)
    const status = await scene.mq.status('work')
    expect(status.next.circuits).toMatchObject([{ name: 'provider', state: 'open' }])
    expect(status.next.resumeInMs).toBeGreaterThan(0)
    expect(status.stuck.inFlight).toBe(0)
    // Still sick: every cooldown lets one job try.
    await scene.clock.advance(30_000)
    const probes = scene.of('started').length - startsWhileSick
    expect(probes).toBeGreaterThanOrEqual(2)
    expect(probes).toBeLessThanOrEqual(4)
    sick = false
    together.length = 0
    await scene.drain('work')
    expect(scene.of('succeeded')).toHaveLength(200)
    expect(await scene.dead('work')).toEqual([])
    // One probe alone, then at most 2, then at most 4.
    expect(together[0]).toBe(1)
    expect(together[1]).toBe(1)
    expect(Math.max(...together.slice(0, 3))).toBeLessThanOrEqual(2)
    expect(Math.max(...together)).toBe(8)
    const attempts = scene.of('succeeded').map(({ attempt }) => attempt)
    expect(attempts.filter((attempt) => attempt === 1).length).toBeGreaterThan(180)
    expect(scene.of('resumed').length).toBe(scene.of('paused').length)
  })

  it('opens for transient failures only', async () => {
    const scene = await openScene()
    const job = numberedJob({ circuit: breaker() })
    const worker = scene.worker().handle(job, () => {
      throw new PermanentError('declined')
    })
    await enqueue(scene, job, 50)
    await worker.start()
    await scene.drain('work')
    expect(await scene.dead('work')).toHaveLength(50)
    expect(scene.of('circuit_opened')).toEqual([])
  })

  it('waits for the first of several circuits, not for the slowest', async () => {
    const scene = await openScene()
    const quick = numberedJob({ name: 'quick', circuit: breaker({ name: 'a', cooldownMs: 2_000 }), retry: patient })
    const slow = numberedJob({ name: 'slow', circuit: breaker({ name: 'b', cooldownMs: 60_000 }), retry: patient })
    let sick = true
    const worker = scene
      .worker({ concurrency: 4, prefetch: 8 })
      .handle(quick, () => {
        if (sick) throw new Error('503')
      })
      .handle(slow, () => {
        throw new Error('503')
      })
    await enqueue(scene, quick, 8)
    await enqueue(scene, slow, 8)
    await worker.start()
    await scene.clock.advance(1_900)
    expect(scene.of('circuit_opened').map(({ circuit }) => circuit)).toEqual(['a', 'b'])
    sick = false
    await scene.clock.advance(15_000)
    expect(scene.of('succeeded').filter(({ job }) => job === 'quick')).toHaveLength(8)
  })

  it('is stopped like any other worker while it is open, and what waits keeps its attempts', async () => {
    const scene = await openScene()
    const circuit = breaker()
    const job = numberedJob({ circuit, retry: patient })
    let sick = true
    const handler = (): void => {
      if (sick) throw new Error('503')
    }
    const worker = scene.worker({ concurrency: 4 }).handle(job, handler)
    await enqueue(scene, job, 20)
    await worker.start()
    await scene.clock.advance(100)
    const { length: starts } = scene.of('started')
    await worker.stop()
    await scene.clock.advance(60_000)
    expect(scene.of('started')).toHaveLength(starts)
    expect(scene.of('resumed')).toEqual([])
    sick = false
    const next = scene.worker({ concurrency: 4 }).handle(job, handler)
    await next.start()
    await scene.drain('work')
    expect(scene.of('succeeded')).toHaveLength(20)
  })
})

describe('a circuit of some handlers', () => {
  it('defers just their jobs, without using an attempt, and the others run on', async () => {
    const scene = await openScene()
    const guarded = numberedJob({ name: 'guarded', circuit: breaker(), retry: patient })
    const other = numberedJob({ name: 'other' })
    let sick = true
    const worker = scene
      .worker({ concurrency: 4 })
      .handle(guarded, () => {
        if (sick) throw new Error('503')
      })
      .handle(other, () => {})
    await enqueue(scene, guarded, 30)
    await enqueue(scene, other, 30)
    await worker.start()
    await scene.clock.advance(5_000)
    expect(scene.of('succeeded').map(({ job }) => job)).toEqual(Array.from({ length: 30 }, () => 'other'))
    expect(scene.of('paused')).toEqual([])
    const deferred = scene.of('deferred')
    expect(deferred.length).toBeGreaterThanOrEqual(20)
    expect(deferred.every(({ reason, job }) => reason === 'circuit_open' && job === 'guarded')).toBe(true)
    sick = false
    await scene.drain('work')
    expect(scene.of('succeeded')).toHaveLength(60)
    expect(await scene.dead('work')).toEqual([])
  })
})

describe('a circuit shared by two queues', () => {
  it('wakes the one that only waited for the probe of the other', async () => {
    const scene = await openScene()
    const circuit = breaker({ cooldownMs: 1_000 })
    const one = numberedJob({ name: 'one', queue: 'work', circuit, retry: patient })
    const two = numberedJob({ name: 'two', queue: 'other', circuit, retry: patient })
    let sick = true
    const handler = async (): Promise<void> => {
      await sleep(scene.clock, 300)
      if (sick) throw new Error('503')
    }
    const worker = scene.worker({ concurrency: 4 }).handle(one, handler).handle(two, handler)
    await enqueue(scene, one, 20)
    await enqueue(scene, two, 20)
    await worker.start()
    await scene.clock.advance(1_000)
    sick = false
    await scene.clock.advance(60_000)
    expect(scene.of('succeeded').filter(({ queue }) => queue === 'work')).toHaveLength(20)
    expect(scene.of('succeeded').filter(({ queue }) => queue === 'other')).toHaveLength(20)
  })
})
