import { memory } from '@idemq/memory'
import { describe, expect, it } from 'vitest'
import { z } from 'zod'
import { altered, during, numberedJob, openScene, type Scene, type SceneOptions } from '../test/scene.ts'
import { type ConnectOptions, connect, type Mq } from './client.ts'
import { ManualClock } from './clock.ts'
import type { Driver, Outgoing } from './driver.ts'
import { decodeEnvelope, maxNesting, reserveBytes } from './envelope.ts'
import { IdemqError } from './errors.ts'
import type { EnqueueOptions } from './internal/composer.ts'
import { byJobId, defineJob } from './job.ts'

/** A scene whose driver writes down what it was sent. */
async function recording(
  changes: (driver: Driver) => Partial<Driver> = () => ({}),
  options: SceneOptions = {},
): Promise<{ scene: Scene; mq: Mq; sent: Outgoing[] }> {
  const sent: Outgoing[] = []
  const scene = await openScene({
    ...options,
    driver: (driver) =>
      altered(driver, {
        send: async (target, batch, signal) => {
          sent.push(...batch)
          return driver.send(target, batch, signal)
        },
        ...changes(driver),
      }),
  })
  return { scene, mq: scene.mq, sent }
}

const order = defineJob('order', {
  queue: 'work',
  payload: z.object({ id: z.string(), lines: z.array(z.object({ cents: z.number().int() })) }),
  idempotencyKey: ({ id }) => id,
})
const anything = defineJob('anything', { queue: 'work', payload: z.any(), idempotencyKey: byJobId })

describe('enqueue', () => {
  it('sends one valid envelope with everything that was asked for', async () => {
    const { scene, mq, sent } = await recording()
    const answer = await mq.enqueue(
      order,
      { id: 'o-1', lines: [] },
      {
        delayMs: 5_000,
        orderingKey: 'customer 7',
        correlationId: 'checkout',
        causationId: 'click',
        headers: { tenant: 'acme' },
        expiresInMs: 60_000,
      },
    )
    expect(answer.idempotencyKey).toBe('o-1')
    expect(answer.jobId).toMatch(/^[0-9a-f]{8}-[0-9a-f]{4}-7[0-9a-f]{3}-[89ab][0-9a-f]{3}-[0-9a-f]{12}$/)
    expect(sent).toHaveLength(1)
    const [message] = sent
    expect(message).toMatchObject({
      copyId: `${answer.jobId}.0.1.0`,
      jobId: answer.jobId,
      partitionKey: 'customer 7',
      ordered: true,
      delayMs: 5_000,
    })
    expect(decodeEnvelope(message!.body)).toEqual({
      v: 1,
      job_id: answer.jobId,
      name: 'order',
      idempotency_key: 'o-1',
      attempt: 1,
      replay: 0,
      payload: { id: 'o-1', lines: [] },
      created_at: '2026-01-01T00:00:00.000Z',
      first_enqueued_at: '2026-01-01T00:00:00.000Z',
      not_before: '2026-01-01T00:00:05.000Z',
      expires_at: '2026-01-01T00:01:00.000Z',
      ordering_key: 'customer 7',
      correlation_id: 'checkout',
      causation_id: 'click',
      headers: { tenant: 'acme' },
    })
    expect(scene.of('enqueued')).toMatchObject([{ jobId: answer.jobId, delayMs: 5_000, queue: 'work' }])
  })

  it('sends the input of the schema, not its output', async () => {
    const { mq, sent } = await recording()
    const job = defineJob('trim', {
      queue: 'work',
      payload: z.object({ id: z.string().transform((id) => id.trim()) }),
      idempotencyKey: ({ id }) => id,
    })
    const { idempotencyKey } = await mq.enqueue(job, { id: '  a  ' })
    expect(idempotencyKey).toBe('a')
    expect(decodeEnvelope(sent[0]!.body).payload).toEqual({ id: '  a  ' })
  })

  it('gives ids that sort by time, all different, and one job for one jobId', async () => {
    const { mq } = await recording()
    const results = await mq.enqueueMany(
      anything,
      Array.from({ length: 1_000 }, (_, n) => n),
    )
    const ids = results.map((result) => (result.status === 'stored' ? result.jobId : ''))
    expect(new Set(ids).size).toBe(1_000)
    expect(ids).toEqual(ids.toSorted())
    await mq.enqueue(anything, 1, { jobId: 'mine' })
    await mq.enqueue(anything, 1, { jobId: 'mine' })
    expect((await mq.status('work')).stuck.ready).toBe(1_001)
  })

  it('names each path of an invalid payload, never its values, and sends nothing', async () => {
    const { mq, sent } = await recording()
    const payload = { id: 7, lines: [{ cents: 1 }, { cents: 'hunter2' }] } as never
    const error = await mq.enqueue(order, payload).catch((thrown: unknown) => thrown)
    expect(error).toBeInstanceOf(IdemqError)
    expect(error).toMatchObject({ code: 'INVALID_PAYLOAD' })
    expect((error as Error).message).toMatch(/^order: id: .*; lines\.1\.cents: /)
    expect((error as Error).message).not.toContain('hunter2')
    expect(sent).toEqual([])
  })

  it.each<[string, unknown]>([
    ['undefined', undefined],
    ['a function', () => 1],
    ['a symbol', Symbol('s')],
    ['a bigint', { n: 1n }],
    ['what is nested too deep', JSON.parse('['.repeat(maxNesting) + ']'.repeat(maxNesting))],
    ['what is nested beyond any stack', JSON.parse('['.repeat(100_000) + ']'.repeat(100_000))],
    [
      'a circle',
      (() => {
        const circle: { self?: unknown } = {}
        circle.self = circle
        return circle
      })(),
    ],
  ])('refuses %s as no JSON', async (_, payload) => {
    const { mq, sent } = await recording()
    await expect(mq.enqueue(anything, payload)).rejects.toMatchObject({ name: 'IdemqError', code: 'INVALID_PAYLOAD' })
    expect(sent).toEqual([])
  })

  it.each([
    ['', 'empty'],
    ['k'.repeat(1_025), 'too long'],
    ['a\0b', 'with NUL'],
    ['\ud800', 'half a surrogate pair'],
    [7, 'a number'],
    [undefined, 'undefined'],
  ])('refuses the idempotency key %j (%s)', async (key, _) => {
    const { mq, sent } = await recording()
    const job = numberedJob({ idempotencyKey: () => key as string })
    const error = await mq.enqueue(job, { n: 1 }).catch((thrown: unknown) => thrown)
    expect(error).toMatchObject({ name: 'IdemqError', code: 'INVALID_PAYLOAD' })
    expect((error as Error).message).toContain('idempotency key')
    expect(sent).toEqual([])
  })

  it.each<[string, unknown]>([
    ['delayMs', -1],
    ['delayMs', Number.NaN],
    ['delayMs', Number.POSITIVE_INFINITY],
    ['delayMs', 101 * 365 * 24 * 3_600_000],
    ['delayMs', 'soon'],
    ['expiresInMs', 0],
    ['expiresInMs', Number.NaN],
    ['expiresInMs', Number.POSITIVE_INFINITY],
    ['orderingKey', ''],
    ['orderingKey', null],
    ['orderingKey', 7],
    ['orderingKey', 'o'.repeat(1_025)],
    ['jobId', ''],
    ['jobId', 'j'.repeat(129)],
    ['jobId', 'a\0b'],
    ['correlationId', ''],
    ['correlationId', '\udc00'],
    ['causationId', 'c'.repeat(1_025)],
    ['headers', { n: 1 }],
    ['headers', []],
    ['headers', 'a=b'],
    ['headers', null],
  ])('refuses the option %s: %j', async (name, value) => {
    const { mq, sent } = await recording()
    const options = { [name]: value } as EnqueueOptions
    const error = await mq.enqueue(anything, 1, options).catch((thrown: unknown) => thrown)
    expect(error).toMatchObject({ name: 'IdemqError', code: 'INVALID_OPTION' })
    expect((error as Error).message).toMatch(new RegExp(`^anything: ${name} `))
    expect(sent).toEqual([])
  })

  it('refuses an expiry before the delay is over', async () => {
    const { mq, sent } = await recording()
    const options = { delayMs: 1_000, expiresInMs: 1_000 }
    await expect(mq.enqueue(anything, 1, options)).rejects.toMatchObject({ code: 'INVALID_OPTION' })
    expect(sent).toEqual([])
  })

  it('refuses what the broker cannot honour: order, a delay beyond its retention', async () => {
    const { mq, sent } = await recording((driver) => ({
      capabilities: { ...driver.capabilities, ordering: 'none', retentionMs: 60_000 },
    }))
    await expect(mq.enqueue(anything, 1, { orderingKey: 'k' })).rejects.toMatchObject({ code: 'UNSUPPORTED' })
    await expect(mq.enqueue(anything, 1, { delayMs: 60_000 })).rejects.toMatchObject({ code: 'UNSUPPORTED' })
    await mq.enqueue(anything, 1, { delayMs: 59_999 })
    expect(sent).toHaveLength(1)
  })

  it('keeps the reserve for failures free, to the byte', async () => {
    const maxBodyBytes = 32 * 1024
    const { mq, sent } = await recording(undefined, { memory: { maxBodyBytes } })
    await mq.enqueue(anything, '', { jobId: 'x' })
    const room = maxBodyBytes - reserveBytes - sent[0]!.body.byteLength
    await mq.enqueue(anything, 'x'.repeat(room), { jobId: 'y' })
    expect(sent[1]!.body.byteLength).toBe(maxBodyBytes - reserveBytes)
    await expect(mq.enqueue(anything, 'x'.repeat(room + 1), { jobId: 'z' })).rejects.toMatchObject({
      code: 'BODY_TOO_LARGE',
    })
    expect(sent).toHaveLength(2)
  })

  it('sends nothing for a signal that has aborted already', async () => {
    const { mq, sent } = await recording()
    const signal = AbortSignal.abort()
    await expect(mq.enqueue(anything, 1, { signal })).rejects.toMatchObject({ code: 'ABORTED' })
    expect(sent).toEqual([])
  })
})

describe('enqueueMany', () => {
  it('answers one by one, in order, for all kinds of refusal', async () => {
    const { mq, sent } = await recording(undefined, { memory: { maxBodyBytes: 32 * 1024 } })
    const payloads = ['ok', undefined, 'x'.repeat(20_000), 'also ok', { n: 1n }, 'bad option']
    const results = await mq.enqueueMany(anything, payloads, (payload, index) => ({
      headers: { index: `${index}` },
      ...(payload === 'bad option' && { delayMs: -1 }),
    }))
    const said = results.map((result) => (result.status === 'stored' ? 'stored' : result.error.code))
    expect(said).toEqual(['stored', 'INVALID_PAYLOAD', 'BODY_TOO_LARGE', 'stored', 'INVALID_PAYLOAD', 'INVALID_OPTION'])
    expect(sent.map(({ body }) => decodeEnvelope(body).headers!.index)).toEqual(['0', '3'])
  })

  it('sends in batches of what the broker takes', async () => {
    const batches: number[] = []
    const { mq } = await recording((driver) => ({
      capabilities: { ...driver.capabilities, maxBatch: 10 },
      send: async (target, batch, signal) => {
        batches.push(batch.length)
        return driver.send(target, batch, signal)
      },
    }))
    const results = await mq.enqueueMany(
      anything,
      Array.from({ length: 95 }, (_, n) => n),
    )
    expect(results.every(({ status }) => status === 'stored')).toBe(true)
    expect(batches).toEqual([10, 10, 10, 10, 10, 10, 10, 10, 10, 5])
  })

  it('of nothing is nothing', async () => {
    const { mq, sent } = await recording()
    expect(await mq.enqueueMany(anything, [])).toEqual([])
    expect(sent).toEqual([])
  })

  it('takes an asynchronous schema', async () => {
    const { mq } = await recording()
    const job = defineJob('async', {
      queue: 'work',
      payload: z.string().refine(async (text) => text !== 'bad', 'is bad'),
      idempotencyKey: (text) => text,
    })
    const results = await mq.enqueueMany(job, ['good', 'bad'])
    expect(results).toMatchObject([{ status: 'stored', idempotencyKey: 'good' }, { status: 'failed' }])
    expect(results[1]).toMatchObject({ error: { code: 'INVALID_PAYLOAD', message: 'async: (payload): is bad' } })
  })
})

describe('a broker in trouble', () => {
  it('is tried until the timeout, then its error is passed on', async () => {
    let calls = 0
    const { scene, mq } = await recording(() => ({
      send: async () => {
        calls++
        throw new IdemqError('BROKER_UNAVAILABLE', 'connection refused')
      },
    }))
    const startedAtMs = scene.clock.monotonicMs()
    await expect(during(scene.clock, mq.enqueue(anything, 1))).rejects.toMatchObject({ code: 'BROKER_UNAVAILABLE' })
    const tookMs = scene.clock.monotonicMs() - startedAtMs
    expect(tookMs).toBeGreaterThan(7_500)
    expect(tookMs).toBeLessThanOrEqual(10_500)
    expect(calls).toBeGreaterThan(5)
  })

  it('that may have stored the job is SEND_UNKNOWN, and a repeat with the jobId is the same job', async () => {
    let answering = false
    const { scene, mq } = await recording((driver) => ({
      send: async (target, batch, signal) => {
        const sent = await driver.send(target, batch, signal)
        return answering ? sent : batch.map(() => ({ status: 'unknown' as const }))
      },
    }))
    const error = await during(scene.clock, mq.enqueue(anything, 1, { jobId: 'mine' })).catch((e: unknown) => e)
    expect(error).toMatchObject({ code: 'SEND_UNKNOWN' })
    expect((error as Error).message).toContain('mine.0.1.0')
    answering = true
    await mq.enqueue(anything, 1, { jobId: 'mine' })
    expect((await mq.status('work')).stuck.ready).toBe(1)
  })

  it('is declared again by the next call', async () => {
    let down = true
    const { scene, mq } = await recording((driver) => ({
      declare: async (queue, mode, signal) => {
        if (down) throw new IdemqError('UNAUTHORIZED', 'wrong password')
        return driver.declare(queue, mode, signal)
      },
    }))
    await expect(mq.enqueue(anything, 1)).rejects.toMatchObject({ code: 'UNAUTHORIZED' })
    await expect(mq.enqueueMany(anything, [1])).rejects.toMatchObject({ code: 'UNAUTHORIZED' })
    down = false
    await mq.enqueue(anything, 1)
    expect(scene.of('enqueued')).toHaveLength(1)
  })
})

describe('connect', () => {
  const { driver } = memory()
  it.each<[unknown, ConnectOptions, RegExp]>([
    [driver, { sendTimeoutMs: 0 }, /sendTimeoutMs is 0/],
    [driver, { sendTimeoutMs: Number.NaN }, /sendTimeoutMs/],
    [driver, { declare: 'drop' as never }, /declare is 'drop'/],
    [undefined, {}, /a URL, a driver or an adapter/],
    [null, {}, /a URL, a driver or an adapter/],
    [7, {}, /a URL, a driver or an adapter/],
  ])('refuses (%s, %j)', async (target, options, message) => {
    const error = await connect(target as string, options).catch((thrown: unknown) => thrown)
    expect(error).toMatchObject({ name: 'IdemqError', code: 'INVALID_OPTION' })
    expect((error as Error).message).toMatch(message)
  })

  it('takes a URL, a driver, or what an adapter factory made', async () => {
    for (const target of ['memory:', new URL('memory:'), memory().driver, memory()]) {
      const mq = await connect(target, { clock: new ManualClock() })
      await mq.enqueue(anything, 1)
      expect((await mq.status('work')).stuck.ready).toBe(1)
      await mq.close()
    }
  })

  it('says on which broker there is no outbox', async () => {
    const { mq } = await recording()
    expect(() => mq.outbox()).toThrow(expect.objectContaining({ code: 'UNSUPPORTED' }))
    expect(() => mq.relay()).toThrow(expect.objectContaining({ code: 'UNSUPPORTED' }))
  })
})
