/** Stopping: what runs may end, what waits goes back, nothing loses an attempt. */
import { describe, expect, it } from 'vitest'
import { type JobContext, sleep } from '../src/index.ts'
import { altered, during, gate, type Numbered, numberedJob, openScene } from './scene.ts'

const many = (count: number): Numbered[] => Array.from({ length: count }, (_, n) => ({ n }))

describe('stop', () => {
  it('waits for what runs, hands back what waits, and takes nothing new', async () => {
    const scene = await openScene()
    const job = numberedJob()
    const worker = scene.worker({ concurrency: 2, prefetch: 10 }).handle(job, () => sleep(scene.clock, 3_000))
    await scene.mq.enqueueMany(job, many(30))
    await worker.start()
    await scene.clock.advance(1_000)
    await during(scene.clock, worker.stop())
    // It waited for the two that ran, and no longer.
    expect(scene.clock.monotonicMs()).toBeLessThan(4_000)
    expect(scene.of('succeeded')).toHaveLength(2)
    expect(scene.of('started')).toHaveLength(2)
    expect((await scene.mq.status('work')).stuck).toMatchObject({ ready: 28, inFlight: 0, delayed: 0, runningHere: 0 })
    expect(scene.of('deferred').every(({ reason }) => reason === 'drain')).toBe(true)
    const next = scene.worker({ concurrency: 30 }).handle(job, () => {})
    await next.start()
    await scene.drain('work')
    expect(scene.of('succeeded')).toHaveLength(30)
    expect(scene.of('started').every(({ attempt }) => attempt === 1)).toBe(true)
  })

  it('aborts what does not end in time and gives its attempt back', async () => {
    const scene = await openScene()
    const job = numberedJob({ timeoutMs: 600_000 })
    const reasons: unknown[] = []
    const worker = scene.worker().handle(job, async (_, { signal }) => {
      await sleep(scene.clock, 300_000, signal)
      if (signal.aborted) reasons.push((signal.reason as { code: string }).code)
      signal.throwIfAborted()
    })
    await scene.mq.enqueueMany(job, many(5))
    await worker.start()
    await scene.clock.advance(1_000)
    await during(scene.clock, worker.stop({ drainMs: 2_000 }))
    expect(reasons).toEqual(Array.from({ length: 5 }, () => 'ABORTED'))
    expect(scene.of('failed')).toEqual([])
    const next = scene.worker().handle(job, () => {})
    await next.start()
    await scene.drain('work')
    expect(scene.of('succeeded').map(({ attempt }) => attempt)).toEqual([1, 1, 1, 1, 1])
  })

  it('leaves the claim of a deaf handler to lapse, so that it is never doubled within the lease', async () => {
    const scene = await openScene()
    const job = numberedJob({ timeoutMs: 600_000 })
    const deaf = gate()
    const startsMs: number[] = []
    const handler = (_: Numbered, { attempt }: JobContext): unknown => {
      startsMs.push(scene.clock.monotonicMs())
      return attempt === 1 ? deaf.opened : undefined
    }
    const worker = scene.worker({ claimLeaseMs: 15_000, graceMs: 1_000 }).handle(job, handler)
    await scene.mq.enqueueMany(job, [{ n: 1 }])
    await worker.start()
    await scene.clock.advance(1_000)
    await during(scene.clock, worker.stop({ drainMs: 1_000 }))
    const stoppedAtMs = scene.clock.monotonicMs()
    expect(stoppedAtMs).toBeLessThan(6_000)
    const next = scene.worker({ claimLeaseMs: 15_000 }).handle(job, handler)
    await next.start()
    await scene.drain('work')
    // It did start, so that start is used; the next one waited for the claim, renewed at most until the abort.
    expect(scene.of('succeeded').map(({ attempt }) => attempt)).toEqual([2])
    expect(startsMs[1]! - startsMs[0]!).toBeGreaterThanOrEqual(15_000)
    deaf.open()
    await scene.clock.advance(1_000)
    expect(scene.of('succeeded')).toHaveLength(1)
  })

  it('lets followers and lanes of what runs go back as well', async () => {
    // A broker that leaves the order to the worker: a whole lane is in hand.
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
    const job = numberedJob({ idempotencyKey: ({ n }) => `${n % 2}`, fingerprint: ({ n }) => n % 2 })
    const ordered = numberedJob({ name: 'ordered' })
    const worker = scene
      .worker({ concurrency: 8, prefetch: 64 })
      .handle(job, () => sleep(scene.clock, 5_000))
      .handle(ordered, () => sleep(scene.clock, 5_000))
    await scene.mq.enqueueMany(job, many(8))
    await scene.mq.enqueueMany(ordered, many(8), { orderingKey: 'lane' })
    await worker.start()
    await scene.clock.advance(100)
    await during(scene.clock, worker.stop())
    // Nobody is waited for but the three that run.
    expect(scene.clock.monotonicMs()).toBeLessThan(6_000)
    expect(scene.of('started')).toHaveLength(3)
    const { stuck } = await scene.mq.status('work')
    expect(stuck).toMatchObject({ inFlight: 0, runningHere: 0 })
    const next = scene
      .worker()
      .handle(job, () => {})
      .handle(ordered, () => {})
    await next.start()
    await scene.drain('work')
    expect(scene.of('succeeded')).toHaveLength(2 + 8)
    expect(scene.of('deduplicated')).toHaveLength(6)
    expect(scene.of('started').every(({ attempt }) => attempt === 1)).toBe(true)
  })

  it('may be called twice, at once and again; all calls resolve together', async () => {
    const scene = await openScene()
    const job = numberedJob()
    const worker = scene.worker().handle(job, () => sleep(scene.clock, 2_000))
    await scene.mq.enqueue(job, { n: 1 })
    await worker.start()
    await scene.clock.advance(1)
    await during(scene.clock, Promise.all([worker.stop(), worker.stop({ drainMs: 0 })]))
    await worker.stop()
    expect(scene.of('succeeded')).toHaveLength(1)
    await expect(worker.start()).rejects.toMatchObject({ code: 'CLOSED' })
  })

  it.each(['prepare', 'open'])('during start (%s) leaves nothing running', async (where) => {
    const entered = gate()
    const prepared = gate()
    let receivers = 0
    const reach = async (what: string): Promise<void> => {
      if (what !== where) return
      entered.open()
      await prepared.opened
    }
    const scene = await openScene({
      inbox: (inbox) => altered(inbox, { prepare: () => reach('prepare') }),
      driver: (driver) =>
        altered(driver, {
          open: async (queue, options, signal) => {
            await reach('open')
            const receiver = await driver.open(queue, options, signal)
            receivers++
            return altered(receiver, {
              close: async () => {
                receivers--
                await receiver.close()
              },
            })
          },
        }),
    })
    const job = numberedJob()
    let runs = 0
    const worker = scene.worker().handle(job, () => {
      runs++
    })
    const starting = worker.start()
    await entered.opened
    const stopping = worker.stop()
    prepared.open()
    await expect(starting).rejects.toMatchObject({ code: 'CLOSED' })
    await during(scene.clock, stopping)
    await scene.mq.enqueue(job, { n: 1 })
    await scene.clock.advance(60_000)
    expect(runs).toBe(0)
    expect((await scene.mq.status('work')).stuck).toMatchObject({ ready: 1, inFlight: 0 })
    expect(receivers).toBe(0)
  })

  it('before start, and with nothing to do, is quick', async () => {
    const scene = await openScene()
    const worker = scene.worker().handle(numberedJob(), () => {})
    await worker.stop()
    await expect(worker.start()).rejects.toMatchObject({ code: 'CLOSED' })
    const idle = scene.worker().handle(numberedJob(), () => {})
    await idle.start()
    await scene.clock.advance(10)
    await idle.stop()
    expect(scene.clock.monotonicMs()).toBe(10)
  })

  it('ends although broker and inbox are gone, and says what it could not do', async () => {
    let gone = false
    const fail = <T>(run: () => Promise<T>): Promise<T> => (gone ? Promise.reject(new Error('ECONNRESET')) : run())
    const scene = await openScene({
      driver: (driver) =>
        altered(driver, { send: (target, batch, signal) => fail(() => driver.send(target, batch, signal)) }),
      inbox: (inbox) =>
        altered(inbox, {
          end: (batch, retentionMs, signal) => fail(() => inbox.end(batch, retentionMs, signal)),
          renew: (batch, leaseMs, signal) => fail(() => inbox.renew(batch, leaseMs, signal)),
        }),
    })
    const job = numberedJob()
    const worker = scene.worker({ graceMs: 1_000, leaseMs: 10_000, claimLeaseMs: 10_000 }).handle(job, ({ n }) => {
      gone = true
      if (n > 0) throw new Error('no')
    })
    await scene.mq.enqueueMany(job, many(4))
    await worker.start()
    await scene.clock.advance(500)
    await during(scene.clock, worker.stop({ drainMs: 3_000 }))
    expect(scene.of('trouble').length).toBeGreaterThan(0)
    expect((await scene.mq.status('work')).stuck.runningHere).toBe(0)
    gone = false
    const next = scene.worker().handle(job, () => {})
    await next.start()
    await scene.drain('work')
    // Nothing is lost: what could not be told comes back once its claim has lapsed.
    const done = new Set(scene.of('succeeded').map(({ jobId }) => jobId))
    expect(done.size).toBe(4)
  })
})

describe('close', () => {
  it('drains workers, waits for sends under way, and refuses what comes after', async () => {
    const sending = gate()
    let held = false
    const scene = await openScene({
      driver: (driver) =>
        altered(driver, {
          send: async (target, batch, signal) => {
            if (held) await sending.opened
            return driver.send(target, batch, signal)
          },
        }),
    })
    const job = numberedJob()
    const worker = scene.worker().handle(job, () => sleep(scene.clock, 1_000))
    await scene.mq.enqueue(job, { n: 1 })
    await worker.start()
    await scene.clock.advance(10)
    held = true
    const enqueued = scene.mq.enqueue(job, { n: 2 })
    await scene.clock.advance(0)
    let closed = false
    const closing = scene.mq.close().then(() => {
      closed = true
    })
    expect(() => scene.mq.worker()).toThrow(expect.objectContaining({ code: 'CLOSED' }))
    await scene.clock.advance(5_000)
    expect(scene.of('succeeded')).toHaveLength(1)
    expect(closed).toBe(false)
    await expect(scene.mq.enqueue(job, { n: 3 })).rejects.toMatchObject({ code: 'CLOSED' })
    await expect(scene.mq.status('work')).rejects.toMatchObject({ code: 'CLOSED' })
    sending.open()
    await during(scene.clock, closing)
    await expect(enqueued).resolves.toMatchObject({ jobId: expect.any(String) })
    await scene.mq.close()
    const stats = scene.mq.driver.stats({ name: 'work', group: 'default' }, AbortSignal.timeout(9))
    await expect(stats).rejects.toMatchObject({ code: 'CLOSED' })
  })

  it('lets handlers that drain enqueue what they still have to', async () => {
    const scene = await openScene()
    const [first, second] = [numberedJob({ name: 'first' }), numberedJob({ name: 'second' })]
    const answers: unknown[] = []
    const worker = scene.worker().handle(first, async () => {
      await sleep(scene.clock, 1_000)
      answers.push(await scene.mq.enqueue(second, { n: 2 }))
    })
    await scene.mq.enqueue(first, { n: 1 })
    await worker.start()
    await scene.clock.advance(10)
    await during(scene.clock, scene.mq.close())
    expect(answers).toMatchObject([{ jobId: expect.any(String) }])
    expect(scene.of('succeeded')).toHaveLength(1)
  })
})
