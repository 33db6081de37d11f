/** What arrives and is not to be run: nothing of it is dropped. */
import { describe, expect, it } from 'vitest'
import { z } from 'zod'
import { type DeadReason, defineJob, type Envelope, encodeEnvelope, fixed, wireTime } from '../src/index.ts'
import { altered, numberedJob, openScene, type Scene } from './scene.ts'
import { bytesOf, refused } from './vectors.ts'

/** Puts bytes on the queue as another program would. */
async function put(scene: Scene, body: Uint8Array, copyId: string = crypto.randomUUID()): Promise<void> {
  const { driver } = scene.mq
  await driver.declare({ name: 'work', group: 'default' }, 'create', AbortSignal.timeout(1_000))
  const message = { copyId, jobId: copyId, body, partitionKey: copyId, ordered: false, delayMs: 0 }
  const [sent] = await driver.send({ name: 'work' }, [message], AbortSignal.timeout(1_000))
  expect(sent).toEqual({ status: 'stored' })
}

/** An envelope as another program would write it now. */
function envelope(scene: Scene, changes: Partial<Envelope> & Record<string, unknown> = {}): Envelope {
  const now = wireTime(scene.clock.now())
  const id = crypto.randomUUID()
  return {
    v: 1,
    job_id: id,
    name: 'numbered',
    idempotency_key: id,
    attempt: 1,
    replay: 0,
    payload: { n: 1 },
    created_at: now,
    first_enqueued_at: now,
    ...changes,
  }
}

describe('bytes that are no envelope', () => {
  it('are dead-lettered byte for byte, equal ones once, and the queue works on', async () => {
    const scene = await openScene()
    const job = numberedJob()
    let done = 0
    const worker = scene.worker().handle(job, () => {
      done++
    })
    const bodies = refused.map((vector) => bytesOf(vector))
    for (const body of bodies) {
      await put(scene, body)
      await put(scene, body)
    }
    await scene.mq.enqueue(job, { n: 1 })
    await worker.start()
    await scene.drain('work')
    expect(done).toBe(1)
    const letters = await scene.dead('work')
    const texts = (all: readonly Uint8Array[]): string[] => all.map((b) => Buffer.from(b).toString('hex')).sort()
    expect(texts(letters.map(({ body }) => body))).toEqual([...new Set(texts(bodies))])
    for (const letter of letters) {
      const vector = refused[bodies.findIndex((body) => Buffer.compare(body, letter.body) === 0)]!
      const reason: DeadReason = vector.code === 'UNSUPPORTED_VERSION' ? 'unsupported_version' : 'malformed'
      expect(letter, vector.name).toMatchObject({ reason, error: reason, envelope: undefined })
      if (vector.field) expect(letter.message).toContain(vector.field)
      await expect(letter.replay()).rejects.toMatchObject({ code: 'INVALID_ENVELOPE' })
    }
    expect(scene.of('dead_lettered')).toHaveLength(bodies.length * 2)
    expect(await scene.mq.deadLetters('work').replay()).toMatchObject({ replayed: 0, unreadable: letters.length })
    expect(await scene.dead('work')).toHaveLength(letters.length)
  })
})

describe('a payload its schema refuses', () => {
  it('is dead-lettered as permanent, naming the path, without calling the handler', async () => {
    const scene = await openScene()
    const job = numberedJob()
    let called = 0
    const worker = scene.worker().handle(job, () => {
      called++
    })
    await put(scene, encodeEnvelope(envelope(scene, { payload: { n: 'secret' }, x_kept: [1] })))
    await worker.start()
    await scene.drain('work')
    expect(called).toBe(0)
    const [letter] = await scene.dead('work')
    expect(letter).toMatchObject({ reason: 'invalid_payload', error: 'IdemqError' })
    expect(letter!.message).toMatch(/^numbered: n: /)
    expect(letter!.message).not.toContain('secret')
    expect(letter!.envelope).toMatchObject({ payload: { n: 'secret' }, x_kept: [1] })
  })

  it('counts as that, too, where the fingerprint already trips over it', async () => {
    const scene = await openScene()
    const job = defineJob('numbered', {
      queue: 'work',
      payload: z.object({ items: z.array(z.string()) }),
      idempotencyKey: ({ items }) => items.join(),
      fingerprint: ({ items }) => items.map((item) => item.length),
    })
    const worker = scene.worker().handle(job, () => {})
    await put(scene, encodeEnvelope(envelope(scene, { idempotency_key: 'business', payload: { items: null } })))
    await worker.start()
    await scene.drain('work')
    const [letter] = await scene.dead('work')
    expect(letter).toMatchObject({ reason: 'invalid_payload' })
    expect(letter!.envelope).toMatchObject({ idempotency_key: 'business' })
  })
})

describe('an unknown job', () => {
  it('is deferred for 15 minutes, then dead-lettered; a handler that comes in time runs it', async () => {
    const scene = await openScene()
    const known = numberedJob()
    const late = numberedJob({ name: 'late' })
    const never = numberedJob({ name: 'never' })
    const worker = scene.worker().handle(known, () => {})
    await worker.start()
    await scene.mq.enqueue(late, { n: 1 })
    await scene.mq.enqueue(never, { n: 2 })
    await scene.clock.advance(10 * 60_000)
    expect(await scene.dead('work')).toEqual([])
    expect(scene.of('deferred').every(({ reason }) => reason === 'unknown_job')).toBe(true)
    await worker.stop()
    const deployed = scene.worker().handle(late, () => {})
    await deployed.start()
    await scene.clock.advance(61_000)
    expect(scene.of('succeeded')).toMatchObject([{ job: 'late', attempt: 1 }])
    await scene.drain('work')
    const [letter, ...others] = await scene.dead('work')
    expect(others).toEqual([])
    expect(letter).toMatchObject({ reason: 'unknown_job', envelope: { name: 'never', attempt: 1 } })
    const waitedMs = letter!.deadAtMs! - Date.parse(letter!.envelope!.created_at)
    expect(waitedMs).toBeGreaterThanOrEqual(15 * 60_000)
    expect(waitedMs).toBeLessThan(17 * 60_000)
  })

  it('gets its 15 minutes after a delay, too', async () => {
    const scene = await openScene()
    const worker = scene.worker().handle(numberedJob(), () => {})
    await worker.start()
    await scene.mq.enqueue(numberedJob({ name: 'other' }), { n: 1 }, { delayMs: 3_600_000 })
    await scene.clock.advance(3_600_000 + 14 * 60_000)
    expect(await scene.dead('work')).toEqual([])
    await scene.clock.advance(3 * 60_000)
    expect(await scene.dead('work')).toMatchObject([{ reason: 'unknown_job' }])
  })

  it('is not deferred for ever where its time of creation lies in the future', async () => {
    const scene = await openScene()
    const worker = scene.worker().handle(numberedJob(), () => {})
    await worker.start()
    await put(scene, encodeEnvelope(envelope(scene, { name: 'other', created_at: '9999-01-01T00:00:00Z' })))
    await scene.clock.advance(17 * 60_000)
    expect(await scene.dead('work')).toMatchObject([{ reason: 'unknown_job' }])
  })
})

describe('an expired job', () => {
  it('is dead-lettered unstarted, also after a failed attempt, and can be replayed', async () => {
    const scene = await openScene()
    const job = numberedJob({ retry: { maxAttempts: 5, backoff: fixed(60_000) } })
    const started: number[] = []
    let failing = true
    const worker = scene.worker().handle(job, ({ n }) => {
      started.push(n)
      if (failing) throw new Error('down')
    })
    await scene.mq.enqueue(job, { n: 1 }, { expiresInMs: 1_000 })
    await scene.clock.advance(1_000)
    await scene.mq.enqueue(job, { n: 2 }, { expiresInMs: 30_000 })
    await worker.start()
    await scene.drain('work')
    expect(started).toEqual([2])
    const letters = await scene.dead('work')
    expect(letters.map(({ reason, error }) => [reason, error])).toEqual([
      ['expired', 'expired'],
      ['expired', 'expired'],
    ])
    failing = false
    await scene.mq.deadLetters('work').replay()
    await scene.drain('work')
    expect(started.sort()).toEqual([1, 2, 2])
    expect(await scene.dead('work')).toEqual([])
  })
})

describe('the same key', () => {
  const order = defineJob('order', {
    queue: 'work',
    payload: z.object({ id: z.string(), cents: z.number() }),
    idempotencyKey: ({ id }) => id,
    retry: { maxAttempts: 2, backoff: fixed(5_000) },
  })

  it('with another payload is dead-lettered while the first is under way or done', async () => {
    const scene = await openScene()
    const worker = scene.worker().handle(order, (_, { attempt }) => {
      if (attempt === 1) throw new Error('retry me')
    })
    await worker.start()
    await scene.mq.enqueue(order, { id: 'a', cents: 1 })
    await scene.clock.advance(1)
    await scene.mq.enqueue(order, { id: 'a', cents: 2 })
    await scene.drain('work')
    await scene.mq.enqueue(order, { id: 'a', cents: 3 })
    await scene.drain('work')
    expect(scene.of('succeeded')).toHaveLength(1)
    const letters = await scene.dead('work')
    expect(letters.map(({ reason, envelope: e }) => [reason, (e!.payload as { cents: number }).cents])).toEqual([
      ['key_mismatch', 2],
      ['key_mismatch', 3],
    ])
  })

  it('with another payload may run once the first failed for good', async () => {
    const scene = await openScene()
    const worker = scene.worker().handle(order, ({ cents }) => {
      if (cents === 1) throw new Error('wrong amount')
    })
    await worker.start()
    await scene.mq.enqueue(order, { id: 'a', cents: 1 })
    await scene.drain('work')
    await scene.mq.enqueue(order, { id: 'a', cents: 2 })
    await scene.drain('work')
    expect(scene.of('succeeded')).toHaveLength(1)
    expect((await scene.dead('work')).map(({ reason }) => reason)).toEqual(['exhausted'])
  })

  it('with fields in another order, or others that the fingerprint leaves out, is the same payload', async () => {
    const scene = await openScene()
    const job = defineJob('order', {
      queue: 'work',
      payload: z.looseObject({ id: z.string(), cents: z.number() }),
      idempotencyKey: ({ id }) => id,
      fingerprint: ({ id, cents }) => ({ id, cents }),
    })
    const worker = scene.worker().handle(job, () => {})
    await worker.start()
    await scene.mq.enqueue(job, { id: 'a', cents: 1, clickedAt: 1 })
    await scene.drain('work')
    await scene.mq.enqueue(job, { cents: 1, clickedAt: 2, id: 'a' })
    await scene.drain('work')
    expect(scene.of('succeeded')).toHaveLength(1)
    expect(scene.of('deduplicated')).toHaveLength(1)
    expect(await scene.dead('work')).toEqual([])
  })

  it('of two jobs by name never meets', async () => {
    const scene = await openScene()
    const one = numberedJob({ name: 'one', idempotencyKey: () => 'k' })
    const two = numberedJob({ name: 'two', idempotencyKey: () => 'k' })
    const worker = scene
      .worker()
      .handle(one, () => {})
      .handle(two, () => {})
    await worker.start()
    await scene.mq.enqueue(one, { n: 1 })
    await scene.mq.enqueue(two, { n: 2 })
    await scene.drain('work')
    expect(scene.of('succeeded')).toHaveLength(2)
  })
})

it('an attempt beyond maxAttempts is dead-lettered without a start', async () => {
  const scene = await openScene()
  const job = numberedJob()
  const worker = scene.worker().handle(job, () => {})
  await worker.start()
  await put(scene, encodeEnvelope(envelope(scene, { attempt: 4 })))
  await scene.drain('work')
  expect(scene.of('started')).toEqual([])
  expect(await scene.dead('work')).toMatchObject([{ reason: 'exhausted', envelope: { attempt: 3 } }])
})

it('a job delivered a thousand times without a claim is dead-lettered', async () => {
  const scene = await openScene({
    driver: (driver) =>
      altered(driver, {
        open: async (queue, options, signal) => {
          const receiver = await driver.open(queue, options, signal)
          return altered(receiver, {
            receive: async (max, waitMs, s) => {
              const deliveries = await receiver.receive(max, waitMs, s)
              return deliveries.map((delivery) => Object.assign(delivery, { priorDeliveries: 1_000 }))
            },
          })
        },
      }),
  })
  const job = numberedJob()
  const worker = scene.worker().handle(job, () => {})
  await scene.mq.enqueue(job, { n: 1 })
  await worker.start()
  await scene.drain('work')
  expect(scene.of('started')).toEqual([])
  expect(await scene.dead('work')).toMatchObject([{ reason: 'delivery_limit' }])
})

it('unknown fields survive every copy: retry, snooze, dead letter, replay', async () => {
  const scene = await openScene()
  const job = numberedJob({ retry: { maxAttempts: 2, backoff: fixed(10) } })
  let calls = 0
  const worker = scene.worker().handle(job, (_, run) => {
    calls++
    if (calls === 1) run.snooze(5)
    else throw new Error('no')
  })
  const text = JSON.stringify(envelope(scene, { x_trace: { deep: [1, null] } }))
  await put(scene, Buffer.from(text.replace('{', '{"__proto__":{"admin":true},')))
  await worker.start()
  await scene.drain('work')
  await scene.mq.deadLetters('work').replay()
  await scene.drain('work')
  const [letter] = await scene.dead('work')
  const document = JSON.parse(Buffer.from(letter!.body).toString())
  expect(document.x_trace).toEqual({ deep: [1, null] })
  expect(Object.hasOwn(document, '__proto__')).toBe(true)
  expect(document).toMatchObject({ replay: 1, attempt: 2, dead: { reason: 'exhausted' } })
})

it('a job that fills the broker to the brim keeps its place among the dead, without its failures', async () => {
  const maxBodyBytes = 32 * 1024
  const scene = await openScene({ memory: { maxBodyBytes } })
  const job = numberedJob({ retry: { maxAttempts: 1 } })
  const worker = scene.worker().handle(job, () => {
    throw new Error('no')
  })
  const least = encodeEnvelope(envelope(scene, { x_filler: '' })).byteLength
  const body = encodeEnvelope(envelope(scene, { x_filler: 'f'.repeat(maxBodyBytes - least) }))
  expect(body.byteLength).toBe(maxBodyBytes)
  await put(scene, body)
  await worker.start()
  await scene.drain('work')
  const [letter] = await scene.dead('work')
  expect(Buffer.compare(letter!.body, body)).toBe(0)
})
