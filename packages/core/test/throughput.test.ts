/** A worker uses the slots it has. */
import { expect, it } from 'vitest'
import { IdemqError, type RetryBudget, sleep } from '../src/index.ts'
import { altered, gate, numberedJob, openScene } from './scene.ts'

it('takes what arrives while a slot is free, also when the last claim was slow', async () => {
  const claimed = gate()
  let slow = true
  const scene = await openScene({
    inbox: (inbox) =>
      altered(inbox, {
        claim: async (batch, times, signal) => {
          if (slow) await claimed.opened
          return inbox.claim(batch, times, signal)
        },
      }),
  })
  const job = numberedJob({ timeoutMs: 600_000 })
  const started: number[] = []
  const worker = scene.worker({ concurrency: 8, prefetch: 8 }).handle(job, ({ n }) => {
    started.push(n)
    return new Promise(() => {})
  })
  await worker.start()
  await scene.mq.enqueue(job, { n: 0 })
  await scene.clock.advance(0)
  // Six more arrive while the first is being claimed; one place is left then.
  await scene.mq.enqueueMany(
    job,
    Array.from({ length: 6 }, (_, i) => ({ n: i + 1 })),
  )
  await scene.clock.advance(0)
  slow = false
  claimed.open()
  await scene.clock.advance(0)
  expect(started).toHaveLength(7)
  await scene.mq.enqueue(job, { n: 7 })
  await scene.clock.advance(100)
  expect(started).toHaveLength(8)
})

it('never runs more at once than its concurrency, nor holds more than its prefetch', async () => {
  const scene = await openScene()
  const job = numberedJob()
  let running = 0
  let most = 0
  let held = 0
  const worker = scene.worker({ concurrency: 3, prefetch: 7 }).handle(job, async () => {
    most = Math.max(most, ++running)
    held = Math.max(held, (await scene.mq.status('work')).stuck.inFlight!)
    running--
  })
  await scene.mq.enqueueMany(
    job,
    Array.from({ length: 100 }, (_, n) => ({ n })),
  )
  await worker.start()
  await scene.drain('work')
  expect(scene.of('succeeded')).toHaveLength(100)
  expect(most).toBe(3)
  expect(held).toBeLessThanOrEqual(7)
  expect(held).toBeGreaterThan(3)
})

it('keeps to its concurrency, and works on, whatever throws on the way', async () => {
  const scene = await openScene({
    inbox: (inbox) =>
      altered(inbox, {
        // Ends of every third job are refused for good: its ending is abandoned after its slot was given back.
        end: async (batch, retentionMs, signal) => {
          if (batch.some(({ state }) => state === 'completed') && ++ends % 3 === 0) {
            throw new IdemqError('UNAUTHORIZED', 'permission denied')
          }
          return inbox.end(batch, retentionMs, signal)
        },
      }),
  })
  let ends = 0
  const broken: RetryBudget = {
    deposit() {
      throw new Error('policy is broken')
    },
    withdraw: () => true,
  }
  const fine = numberedJob({ name: 'fine' })
  const odd = numberedJob({ name: 'odd', budget: broken })
  let running = 0
  let most = 0
  const worker = scene
    .worker({ concurrency: 2, prefetch: 6, leaseMs: 3_000, claimLeaseMs: 3_000 })
    .handle(fine, async () => {
      most = Math.max(most, ++running)
      await sleep(scene.clock, 100)
      running--
    })
    .handle(odd, () => {})
  for (let n = 0; n < 12; n++) {
    await scene.mq.enqueue(odd, { n })
    await scene.mq.enqueue(fine, { n })
  }
  await worker.start()
  await scene.drain('work')
  expect(most).toBe(2)
  expect((await scene.mq.status('work')).stuck).toEqual({ ready: 0, delayed: 0, inFlight: 0, runningHere: 0 })
  const done = new Set(scene.of('succeeded').flatMap(({ job, jobId }) => (job === 'fine' ? [jobId] : [])))
  expect(done.size).toBe(12)
  expect(scene.of('trouble').some(({ error }) => error.code === 'UNAUTHORIZED')).toBe(true)
})

it('survives a broker that answers nothing at once, without spinning', async () => {
  let calls = 0
  const scene = await openScene({
    driver: (driver) =>
      altered(driver, {
        open: async (queue, options, signal) => {
          const receiver = await driver.open(queue, options, signal)
          return altered(receiver, {
            receive: async () => {
              calls++
              return []
            },
          })
        },
      }),
  })
  const worker = scene.worker().handle(numberedJob(), () => {})
  await worker.start()
  await scene.clock.advance(10_000)
  expect(calls).toBeGreaterThan(1)
  expect(calls).toBeLessThan(2_000)
})
