/**
 * 100,000 random and mutated envelopes through the decoder and a worker: no crash, none lost. Every single one is
 * accounted for: it ran, was settled as a duplicate, is among the dead letters with a reason, or is still delayed.
 */
import { expect, it } from 'vitest'
import { z } from 'zod'
import { byJobId, type DeadReason, decodeEnvelope, defineJob, type Envelope, fixed, timeMs } from '../src/index.ts'
import { openScene } from './scene.ts'
import { type Random, randomOf, seed } from './seed.ts'
import { bytesOf, refused } from './vectors.ts'

const total = 100_000
const now = '2026-01-01T00:00:00.000Z'
const edges: readonly unknown[] = [
  ...[
    null,
    true,
    false,
    0,
    1,
    2,
    3,
    7,
    -1,
    1.5,
    1e9,
    1e9 + 1,
    2 ** 53,
    1e300,
    -0,
    '',
    'x',
    ' ',
    '\n',
    'a\0b',
    '\ud800',
  ],
  ...['😀'.repeat(300), '1', 'null', 'numbered', 'constructor', '__proto__', 'k'.repeat(1_024), 'k'.repeat(1_025)],
  ...[
    '2025-12-31T23:59:59Z',
    '2026-01-01T00:05:00Z',
    '9999-12-31T23:59:59Z',
    '0000-01-01T00:00:00Z',
    '2026-02-30T00:00:00Z',
  ],
  ...[[], {}, [null], [[]], { a: 1 }, { a: 'b' }, [{}], { toJSON: 1 }, { __proto__: null }],
  ...[[{ attempt: 1, at: now, class: 'transient', name: '', message: '\ud800' }]],
  ...[
    { reason: 'exhausted', at: now, queue: 'q', group: 'g' },
    { reason: '', at: '', queue: '', group: '' },
  ],
]
const fields = [
  ...[
    'v',
    'job_id',
    'name',
    'idempotency_key',
    'attempt',
    'replay',
    'hop',
    'payload',
    'created_at',
    'first_enqueued_at',
  ],
  ...['not_before', 'expires_at', 'ordering_key', 'correlation_id', 'causation_id', 'traceparent', 'tracestate'],
  ...['headers', 'failures', 'dead', 'constructor', 'toString', 'unknown'],
]
const numbered = z.object({ n: z.number() })
const jobs = {
  ok: defineJob('ok', { queue: 'work', payload: z.any(), idempotencyKey: byJobId }),
  strict: defineJob('strict', { queue: 'work', payload: numbered, idempotencyKey: byJobId }),
  failing: defineJob('failing', {
    queue: 'work',
    payload: z.any(),
    idempotencyKey: byJobId,
    retry: { maxAttempts: 2, backoff: fixed(50) },
  }),
  flaky: defineJob('flaky', {
    queue: 'work',
    payload: z.any(),
    idempotencyKey: byJobId,
    retry: { maxAttempts: 3, backoff: fixed(50) },
    storeResult: true,
  }),
  snoozing: defineJob('snoozing', { queue: 'work', payload: z.any(), idempotencyKey: byJobId }),
}
const names = Object.keys(jobs)

/** Makes bodies. Each that decodes has a job id no other body has, unless the two are equal byte for byte. */
function bodyMaker(random: Random): () => Uint8Array {
  let made = 0
  const recent: Uint8Array[] = []
  const huge = 'A'.repeat(1024 * 1024)

  const valid = (): Record<string, unknown> => ({
    v: 1,
    job_id: `job-${made}`,
    name: random.chance(0.97) ? random.pick(names) : 'nobody',
    idempotency_key: random.chance(0.8) ? `job-${made}` : `key-${random.below(2_000)}`,
    attempt: 1,
    replay: 0,
    payload: random.pick<unknown>([{ n: made }, { n: 'text' }, null, [], 'x', { deep: { er: [1, 2, { n: null }] } }]),
    created_at: now,
    first_enqueued_at: now,
    ...(random.chance(0.1) && { ordering_key: `lane-${random.below(5)}` }),
    ...(random.chance(0.02) && { not_before: random.pick(['2026-01-01T00:01:00Z', '9999-01-01T00:00:00Z']) }),
    ...(random.chance(0.02) && { expires_at: random.pick(['2025-01-01T00:00:00Z', '2026-01-01T12:00:00Z']) }),
  })
  const tampered = (): string => {
    const document = valid()
    for (let i = 1 + random.below(2); i > 0; i--) {
      const field = random.pick(fields)
      if (random.chance(0.15)) delete document[field]
      // Texts of their own for ids: two jobs of one id would be one job.
      else if (field === 'job_id' && random.chance(0.5)) document[field] = `${made}${'j'.repeat(random.below(130))}`
      else document[field] = random.pick(edges)
    }
    const text = JSON.stringify(document)
    if (!random.chance(0.1)) return text
    const more = random.pick([
      '"__proto__":{"v":2}',
      '"constructor":{"prototype":null}',
      '"v":1',
      `"x":${'9'.repeat(400)}`,
    ])
    return random.chance(0.5) ? `{${more},${text.slice(1)}` : `${text.slice(0, -1)},${more}}`
  }
  const spliced = (): Uint8Array => {
    const original = Buffer.from(JSON.stringify(valid()))
    const at = random.below(original.byteLength)
    const inserted = random.pick([
      ...[
        [],
        [0],
        [0xff],
        [0xc3, 0x28],
        [0xed, 0xa0, 0x80],
        [0xef, 0xbb, 0xbf],
        [0x22],
        [0x5c],
        [0x7b],
        [0x2c],
        [0x31],
      ],
      Array.from({ length: 1 + random.below(4) }, () => random.below(256)),
    ])
    const removed = random.below(3)
    return Buffer.concat([original.subarray(0, at), Buffer.from(inserted), original.subarray(at + removed)])
  }
  const nested = (): string => {
    const levels = random.pick([10, 500, 998, 999, 1_000, 1_001, 5_000, 50_000])
    const [open, close] = random.pick([
      ['[', ']'],
      ['{"a":', '}'],
    ])
    const deep = `${open.repeat(levels)}${open === '[' ? '' : 'null'}${close.repeat(levels)}`
    return JSON.stringify({ ...valid(), payload: 0 }).replace('"payload":0', `"payload":${deep}`)
  }
  const garbage = (): Uint8Array | string =>
    random.pick<() => Uint8Array | string>([
      () => Uint8Array.from({ length: random.below(64) }, () => random.below(256)),
      () => JSON.stringify(random.pick(edges)),
      () => bytesOf(random.pick(refused)),
      () => JSON.stringify({ ...valid(), v: random.below(100) }),
      () => JSON.stringify(valid()).slice(0, random.below(200)),
      () => JSON.stringify([valid()]),
    ])()

  return () => {
    for (;;) {
      made++
      const dice = random.next()
      if (dice > 0.98 && recent.length > 0) return random.pick(recent)
      const text =
        dice < 0.5
          ? JSON.stringify(valid())
          : dice < 0.75
            ? tampered()
            : dice < 0.9
              ? spliced()
              : dice < 0.903
                ? nested()
                : dice < 0.9033
                  ? JSON.stringify({ ...valid(), [random.pick(['payload', 'x', 'name', 'idempotency_key'])]: huge })
                  : garbage()
      const body = typeof text === 'string' ? Buffer.from(text) : text
      if (isUnique(body)) {
        if (body.byteLength < 10_000) recent[random.below(Math.min(50, recent.length + 1))] = body
        return body
      }
    }
  }

  function isUnique(body: Uint8Array): boolean {
    const envelope = decoded(body)
    if (!envelope) return true
    // After a billion hops the next one is no envelope any more: dead-lettered as such, under no job id.
    if (seen.has(envelope.job_id) || envelope.hop === 1e9) return false
    seen.add(envelope.job_id)
    return true
  }
}
const seen = new Set<string>()

/** What the decoder says of a body; asked once. Anything but its two refusals is a crash. */
function decoded(body: Uint8Array): Envelope | undefined {
  if (!decodings.has(body)) decodings.set(body, decode(body))
  return decodings.get(body)
}
const decodings = new Map<Uint8Array, Envelope | undefined>()

function decode(body: Uint8Array): Envelope | undefined {
  try {
    return decodeEnvelope(body)
  } catch (error) {
    if (/^(INVALID_ENVELOPE|UNSUPPORTED_VERSION)$/.test((error as { code: string }).code)) return undefined
    throw error
  }
}

/** Bytes that are no envelope are told apart by all of them. */
function rawKey(body: Uint8Array): string {
  return `raw ${Buffer.from(body).toString('latin1')}`
}

type Fate = 'done' | 'duplicate' | 'delayed' | DeadReason

/** What may become of an envelope, from its fields alone. */
function fatesOf(envelope: Envelope, endMs: number): Fate[] {
  if (envelope.not_before && timeMs(envelope.not_before) > endMs) return ['delayed']
  const expires: Fate[] = envelope.expires_at && timeMs(envelope.expires_at) <= endMs ? ['expired'] : []
  if (!names.includes(envelope.name)) return ['unknown_job', ...expires]
  // The same key as another: one of them runs, others are duplicates, or a mismatch if the payload differs.
  const shared: Fate[] = ['duplicate', 'key_mismatch', 'exhausted', ...expires]
  const valid = numbered.safeParse(envelope.payload).success
  if (envelope.expires_at && timeMs(envelope.expires_at) <= timeMs(now)) return shared
  switch (envelope.name) {
    case 'ok':
    case 'snoozing':
      return ['done', ...shared]
    case 'strict':
      return valid ? ['done', ...shared] : ['invalid_payload', ...shared]
    case 'failing':
      return ['exhausted', ...shared]
    default:
      return ['done', ...shared]
  }
}

it(`loses none of ${total} envelopes, whatever is in them`, async () => {
  const uncaught: unknown[] = []
  const note = (error: unknown): void => void uncaught.push(error)
  process.on('uncaughtException', note).on('unhandledRejection', note)
  try {
    const random = randomOf(seed)
    const next = bodyMaker(random)
    const scene = await openScene()
    const { driver } = scene.mq
    const signal = AbortSignal.timeout(60_000)
    await driver.declare({ name: 'work', group: 'default' }, 'create', signal)

    const fates = new Map<string, Fate[]>()
    const landed = (jobId: string, fate: Fate): void => {
      const known = fates.get(jobId)
      if (known) known.push(fate)
      else fates.set(jobId, [fate])
    }
    scene.mq.on('succeeded', ({ jobId }) => landed(jobId, 'done'))
    scene.mq.on('deduplicated', ({ jobId }) => landed(jobId, 'duplicate'))
    scene.mq.on('dead_lettered', ({ reason, job }) => job && landed(job.jobId, reason))
    const snoozed = new Set<string>()
    const worker = scene
      .worker({ concurrency: 200, prefetch: 1_000 })
      .handle(jobs.ok, () => {})
      .handle(jobs.strict, () => {})
      .handle(jobs.failing, () => {
        throw new Error('\ud800 always')
      })
      .handle(jobs.flaky, async (_, job) => {
        await job.step('once', () => job.attempt)
        if (job.attempt === 1) throw Object.create(null)
        return job.headers
      })
      .handle(jobs.snoozing, (_, job) => {
        if (!snoozed.has(job.id)) job.snooze(30)
        snoozed.add(job.id)
      })
    await worker.start()

    const bodies: Uint8Array[] = []
    for (let sent = 0; sent < total; sent += 1_000) {
      const batch = Array.from({ length: 1_000 }, (_, i) => {
        const body = next()
        bodies.push(body)
        const copyId = `sent-${sent + i}`
        return { copyId, jobId: copyId, body, partitionKey: 'p', ordered: false, delayMs: 0 }
      })
      for (const answer of await driver.send({ name: 'work' }, batch, signal)) expect(answer.status).toBe('stored')
      await scene.clock.advance(0)
    }
    await scene.drain('work', 30 * 60_000)
    const endMs = scene.clock.now()

    const times = new Map<string, number>()
    for (const body of bodies) {
      const jobId = decoded(body)?.job_id
      if (jobId) times.set(`job ${jobId}`, (times.get(`job ${jobId}`) ?? 0) + 1)
    }
    const letters = new Map<string, DeadReason>()
    for await (const letter of scene.mq.deadLetters('work').scan()) {
      const key = letter.envelope?.dead ? `job ${letter.envelope.job_id}` : rawKey(letter.body)
      // Raw bytes that are equal are one letter; a job that was sent twice may have been buried at two hops.
      expect(letters.has(key) && times.get(key) === 1, `two letters of one, seed ${seed}`).toBe(false)
      expect(letter.message, `seed ${seed}`).not.toBe('')
      letters.set(key, letter.reason)
    }

    const tally: Record<string, number> = {}
    const count = (what: string): void => {
      tally[what] = (tally[what] ?? 0) + 1
    }
    const wrong: string[] = []
    const rawLetters = new Set<string>()
    const stillDelayed = new Set<string>()
    for (const body of bodies) {
      const envelope = decoded(body)
      if (!envelope) {
        const raw = rawKey(body)
        rawLetters.add(raw)
        const reason = letters.get(raw)
        count(reason ?? 'lost')
        if (reason !== 'malformed' && reason !== 'unsupported_version')
          wrong.push(`raw: ${reason} ${raw.slice(0, 400)}`)
        continue
      }
      const possible = fatesOf(envelope, endMs)
      const actual = fates.get(envelope.job_id) ?? ['delayed' as const]
      if (actual[0] === 'delayed') stillDelayed.add(envelope.job_id)
      const buried = actual.find((fate) => fate !== 'done' && fate !== 'duplicate' && fate !== 'delayed')
      const kept = buried === undefined ? undefined : letters.get(`job ${envelope.job_id}`)
      // Copies that are equal byte for byte are one job: the others of them end as duplicates.
      const expected = actual.every((fate) => possible.includes(fate) || fate === 'duplicate')
      if (!expected || kept !== buried || actual.filter((fate) => fate === 'done').length > 1) {
        wrong.push(`${actual} (letter: ${kept}), not ${possible}: ${Buffer.from(body).toString().slice(0, 400)}`)
      }
      count(actual[0]!)
    }
    expect(wrong.slice(0, 5), `seed ${seed}, ${wrong.length} wrong`).toEqual([])
    expect(bodies).toHaveLength(total)
    expect(Object.values(tally).reduce((sum, n) => sum + n, 0)).toBe(total)

    // And the other way round: nothing is there that nobody sent.
    const envelopes = new Set(bodies.flatMap((body) => decoded(body)?.job_id ?? []))
    for (const jobId of fates.keys()) expect(envelopes.has(jobId), `${jobId} came from nowhere`).toBe(true)
    for (const key of letters.keys()) expect(rawLetters.has(key) || envelopes.has(key.slice(4))).toBe(true)
    const { stuck } = await scene.mq.status('work')
    expect(stuck, `seed ${seed}`).toMatchObject({ ready: 0, inFlight: 0, runningHere: 0, delayed: stillDelayed.size })
    // Every kind of end was met, or the fuzz is not worth its name.
    for (const end of ['done', 'duplicate', 'delayed', 'malformed', 'unsupported_version', 'invalid_payload']) {
      expect(tally[end], `${end}: ${JSON.stringify(tally)}`).toBeGreaterThan(50)
    }
    for (const end of ['exhausted', 'expired', 'unknown_job', 'key_mismatch']) {
      expect(tally[end], `${end}: ${JSON.stringify(tally)}`).toBeGreaterThan(50)
    }
    await worker.stop()
    await new Promise((resolve) => setImmediate(resolve))
    expect(uncaught, `seed ${seed}`).toEqual([])
    console.log(`fuzz ok: envelopes=${total} seed=${seed} ${JSON.stringify(tally)}`)
  } finally {
    process.off('uncaughtException', note).off('unhandledRejection', note)
  }
}, 180_000)
