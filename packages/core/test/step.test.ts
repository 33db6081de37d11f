/** `job.step`: its record, its key, and the results a job keeps. */
import { memoryInbox } from '@idemq/memory'
import { describe, expect, it } from 'vitest'
import { z } from 'zod'
import { byJobId, defineJob, fixed, noInbox, sleep } from '../src/index.ts'
import { altered, numberedJob, openScene } from './scene.ts'

const charge = defineJob('charge', {
  queue: 'work',
  payload: z.object({ orderId: z.string() }),
  idempotencyKey: ({ orderId }) => `charge:${orderId}`,
  retry: { maxAttempts: 3, backoff: fixed(1_000) },
})

describe('step', () => {
  it('runs once over all attempts and replays once recorded, with one key throughout', async () => {
    const scene = await openScene()
    const keys: string[] = []
    const results: unknown[] = []
    let healthy = false
    const worker = scene.worker().handle(charge, async (_, job) => {
      const receipt = await job.step('provider', ({ idempotencyKey }) => {
        keys.push(idempotencyKey)
        if (keys.length < 2) throw new Error('timeout at the provider')
        return { receipt: 'r-1' }
      })
      results.push(receipt)
      await job.step('mail', ({ idempotencyKey }) => {
        keys.push(idempotencyKey)
        if (!healthy) throw new Error('mail is down')
      })
    })
    await scene.mq.enqueue(charge, { orderId: 'o-1' })
    await worker.start()
    await scene.drain('work')
    expect(await scene.dead('work')).toHaveLength(1)
    healthy = true
    await scene.mq.deadLetters('work').replay()
    await scene.drain('work')
    expect(scene.of('succeeded')).toMatchObject([{ attempt: 1, replay: 1 }])
    const [provider, mail] = ['charge:o-1/provider', 'charge:o-1/mail']
    expect(keys).toEqual([provider, provider, mail, mail, mail])
    expect(results).toEqual([{ receipt: 'r-1' }, { receipt: 'r-1' }, { receipt: 'r-1' }])
  })

  it('records undefined, null and results of any step name', async () => {
    const scene = await openScene()
    const job = numberedJob({ retry: { maxAttempts: 2, backoff: fixed(10) } })
    const seen: unknown[] = []
    let calls = 0
    const worker = scene.worker().handle(job, async (_, run) => {
      for (const [name, value] of [
        ['a', undefined],
        ['', null],
        ['__proto__', 0],
        ['constructor', 'x'],
      ] as const) {
        seen.push(
          await run.step(name, () => {
            calls++
            return value
          }),
        )
      }
      if (run.attempt === 1) throw new Error('again')
    })
    await scene.mq.enqueue(job, { n: 1 })
    await worker.start()
    await scene.drain('work')
    expect(seen).toEqual([undefined, null, 0, 'x', undefined, null, 0, 'x'])
    expect(calls).toBe(4)
  })

  it('returns what is too large or no JSON, does not record it, and says so', async () => {
    const scene = await openScene()
    const job = numberedJob({ retry: { maxAttempts: 2, backoff: fixed(10) } })
    const calls = { large: 0, bigint: 0 }
    const worker = scene.worker().handle(job, async (_, run) => {
      const large = await run.step('large', () => {
        calls.large++
        return 'x'.repeat(65 * 1024)
      })
      const bigint = await run.step('bigint', () => {
        calls.bigint++
        return 7n
      })
      expect([large.length, bigint]).toEqual([65 * 1024, 7n])
      if (run.attempt === 1) throw new Error('again')
    })
    await scene.mq.enqueue(job, { n: 1 })
    await worker.start()
    await scene.drain('work')
    expect(calls).toEqual({ large: 2, bigint: 2 })
    expect(scene.of('succeeded')).toHaveLength(1)
    const warnings = scene.of('warning').map(({ message }) => message)
    expect(warnings.filter((message) => message.includes("step 'large'"))).toHaveLength(2)
    expect(warnings.filter((message) => message.includes("step 'bigint'"))).toHaveLength(2)
  })

  it('without an inbox is refused before its effect runs', async () => {
    const scene = await openScene()
    const job = numberedJob({ retry: { maxAttempts: 2, backoff: fixed(10) } })
    let effects = 0
    const worker = scene.worker({ inbox: noInbox() }).handle(job, (_, run) => run.step('charge', () => effects++))
    await scene.mq.enqueue(job, { n: 1 })
    await worker.start()
    await scene.drain('work')
    expect(effects).toBe(0)
    expect(scene.of('failed')[0]!.error).toMatchObject({ code: 'UNSUPPORTED' })
  })

  it('throws CLAIM_LOST where the claim went to another worker, and the job is not completed here', async () => {
    let stolen = false
    const scene = await openScene({
      inbox: (inbox) =>
        altered(inbox, {
          record: async (batch, signal) => (stolen ? batch.map(() => 'lost' as const) : inbox.record(batch, signal)),
        }),
    })
    const job = numberedJob()
    const thrown: unknown[] = []
    const worker = scene.worker().handle(job, async (_, run) => {
      stolen = scene.of('started').length === 1
      try {
        await run.step('one', () => 1)
      } catch (error) {
        thrown.push((error as { code: string }).code, run.signal.aborted)
        throw error
      }
    })
    await scene.mq.enqueue(job, { n: 1 })
    await worker.start()
    await scene.drain('work')
    expect(thrown).toEqual(['CLAIM_LOST', true])
    expect(scene.of('claim_lost')).toHaveLength(1)
    // Handed back and run again: the claim that "somebody took" lapsed, which costs an attempt as a crash does.
    expect(scene.of('succeeded')).toHaveLength(1)
  })
})

describe('storeResult', () => {
  const sum = defineJob('sum', {
    queue: 'work',
    payload: z.object({ key: z.string(), result: z.unknown() }),
    idempotencyKey: ({ key }) => key,
    storeResult: true,
  })

  it('keeps the result in the inbox for duplicates, and only where asked', async () => {
    const inbox = memoryInbox()
    const claimed: unknown[] = []
    const spied = altered(inbox, {
      claim: async (batch, times, signal) => {
        const answers = await inbox.claim(batch, times, signal)
        claimed.push(...answers)
        return answers
      },
    })
    const scene = await openScene({ inbox: () => spied })
    const plain = numberedJob({ idempotencyKey: () => 'plain' })
    const worker = scene
      .worker()
      .handle(sum, ({ result }) => result)
      .handle(plain, () => 'not kept')
    await worker.start()
    for (let i = 0; i < 2; i++) {
      await scene.mq.enqueue(sum, { key: 'k', result: { total: 3 } })
      await scene.mq.enqueue(plain, { n: 1 })
      await scene.drain('work')
    }
    expect(claimed.slice(2)).toEqual([{ status: 'completed', result: '{"total":3}' }, { status: 'completed' }])
  })

  it('leaves a success a success where the result is too large or no JSON', async () => {
    const circular: { self?: unknown } = {}
    circular.self = circular
    const returned = [undefined, 'x'.repeat(70_000), 7n, circular, () => 1]
    const scene = await openScene()
    const job = numberedJob({ storeResult: true })
    const worker = scene.worker().handle(job, ({ n }) => returned[n])
    await worker.start()
    await scene.mq.enqueueMany(
      job,
      returned.map((_, n) => ({ n })),
    )
    await scene.drain('work')
    expect(scene.of('succeeded')).toHaveLength(returned.length)
    expect(scene.of('started')).toHaveLength(returned.length)
    expect(scene.of('warning').filter(({ message }) => message.includes('not stored'))).toHaveLength(3)
  })
})

it('aborts the handler when its claim goes to another worker, and records nothing of it', async () => {
  let stolen = false
  const scene = await openScene({
    inbox: (inbox) =>
      altered(inbox, {
        renew: async (batch, leaseMs, signal) =>
          stolen ? batch.map(() => 'lost' as const) : inbox.renew(batch, leaseMs, signal),
        end: async (batch, retentionMs, signal) =>
          stolen ? batch.map(() => 'lost' as const) : inbox.end(batch, retentionMs, signal),
      }),
  })
  const job = numberedJob({ idempotencyKey: byJobId, timeoutMs: 60_000 })
  const reasons: unknown[] = []
  const worker = scene.worker({ claimLeaseMs: 15_000 }).handle(job, async (_, { signal }) => {
    stolen = scene.of('started').length === 1
    await sleep(scene.clock, 20_000, signal)
    if (signal.aborted) reasons.push((signal.reason as { code: string }).code)
  })
  await scene.mq.enqueue(job, { n: 1 })
  await worker.start()
  await scene.clock.advance(6_000)
  expect(reasons).toEqual(['CLAIM_LOST'])
  expect(scene.of('claim_lost')).toHaveLength(1)
  expect(scene.of('succeeded')).toEqual([])
  stolen = false
  await scene.drain('work')
  expect(scene.of('succeeded')).toHaveLength(1)
})
