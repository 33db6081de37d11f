/** What a crash run enqueues: one kind of job for every way a job can go, and what each may end as. */
import { type AnyJob, defineJob, exponential, type Job, retryBudget } from '@idemq/core'
import type { StatedJob } from '../oracle/statements.ts'
import { type Random, seededRandom } from './random.ts'

/** The one queue of a run. */
export const crashQueue = 'crash'

export interface CrashPayload {
  /** Names the business action; the key is made of it. */
  readonly id: string
  /** Two jobs of one id and different variants are "same key, other payload". */
  readonly variant: number
  /** How often the handler fails or snoozes before it succeeds, by kind. */
  readonly times: number
}

export type KindName =
  | 'charge'
  | 'flaky'
  | 'patient'
  | 'declined'
  | 'double-click'
  | 'mismatch'
  | 'delayed'
  | 'snoozer'
  | 'reserve'
  | 'booked'
  | 'follow-up'
  | 'crasher'

export interface Kind {
  readonly job: Job<CrashPayload>
  readonly mayEnd: StatedJob['mayEnd']
  /** Jobs that share one id: consecutive sequence numbers, so that several producers send them at about one time. */
  readonly shared: number
}

/** Crashes use attempts up. Enough of them that a job of a run dies of its own failures and hardly ever of kills. */
const attemptsForCrashes = 25
const crasherAttempts = 3

function kind(name: KindName, options: Partial<Kind> & { maxAttempts?: number } = {}): Kind {
  const { mayEnd = ['completed'], shared = 1, maxAttempts = attemptsForCrashes } = options
  const job = defineJob<CrashPayload, CrashPayload>(name, {
    queue: crashQueue,
    payload: { '~standard': { version: 1, vendor: 'idemq', validate: acceptPayload } },
    idempotencyKey: (payload) => `${name}:${payload.id}`,
    timeoutMs: 10_000,
    retry: { maxAttempts, backoff: exponential({ baseMs: 40, maxMs: 300 }) },
    // Retries are most of the traffic here; a budget would only stretch the run.
    budget: retryBudget({ ratio: 1, minPerSecond: 10_000 }),
  })
  return { job, mayEnd, shared }
}

function acceptPayload(value: unknown): { value: CrashPayload } | { issues: { message: string }[] } {
  const { id, variant, times } = (value ?? {}) as Partial<CrashPayload>
  if (typeof id !== 'string' || !Number.isInteger(variant) || !Number.isInteger(times)) {
    return { issues: [{ message: 'must be { id, variant, times }' }] }
  }
  return { value: value as CrashPayload }
}

export const kinds: Readonly<Record<KindName, Kind>> = {
  /** One step with an effect at the provider. */
  charge: kind('charge'),
  /** A step, then transient failures, then a second step: a retry must not run the first again. */
  flaky: kind('flaky'),
  /** Fails once and asks for a pause longer than a lease: its retry copy waits while the original may come back. */
  patient: kind('patient'),
  /** Fails for good until it has been replayed. */
  declined: kind('declined', { mayEnd: ['completed', 'permanent'] }),
  /** Several jobs, one key. */
  'double-click': kind('double-click', { shared: 40 }),
  /** Several jobs, one key, two payloads. */
  mismatch: kind('mismatch', { mayEnd: ['completed', 'key_mismatch'], shared: 40 }),
  /** Not before its time. */
  delayed: kind('delayed'),
  /** Comes back later by its own wish, using no attempt. */
  snoozer: kind('snoozer'),
  /** A row in the broker's own database, and a follow-up through the outbox: one commit. Some attempts roll back. */
  reserve: kind('reserve'),
  /** Enqueued by a producer through the outbox, in one commit with a row. One transaction in three rolls back. */
  booked: kind('booked'),
  /** Enqueued by {@link kinds.reserve}, within its transaction. */
  'follow-up': kind('follow-up'),
  /** Kills its process whenever that is allowed to die. */
  crasher: kind('crasher', { maxAttempts: crasherAttempts }),
}

export const crashJobs: readonly AnyJob[] = Object.values(kinds).map(({ job }) => job)

/** How often each kind is drawn, in parts; 'raw' is bytes that are no envelope. */
export type Mix = Partial<Readonly<Record<Exclude<KindName, 'follow-up'> | 'raw', number>>>

export const defaultMix: Mix = {
  charge: 26,
  flaky: 20,
  patient: 3,
  declined: 12,
  'double-click': 10,
  mismatch: 4,
  delayed: 8,
  snoozer: 5,
  reserve: 10,
  booked: 5,
  crasher: 1,
  raw: 1,
}

export interface Draft {
  readonly kind: Exclude<KindName, 'follow-up'>
  readonly payload: CrashPayload
  readonly delayMs: number
}

/** What sequence number `n` of a run stands for. The same in every process, so that duplicates agree. */
export function draft(seed: number, mix: Mix, n: number): Draft | { readonly kind: 'raw'; readonly bytes: Uint8Array } {
  const random = seededRandom(seed, 'job', n)
  const drawn = draw(mix, random)
  if (drawn === 'raw') return { kind: 'raw', bytes: Buffer.from(malformedBytes(random, n)) }
  const id = String(Math.floor(n / kinds[drawn].shared))
  const variant = drawn === 'mismatch' ? n % 2 : 0
  // From the id, not from `n`: jobs that share a key must carry the same payload.
  const times = seededRandom(seed, 'times', drawn, id).integer(1, 3)
  const delayMs = drawn === 'delayed' ? random.integer(200, 1_200) : 0
  return { kind: drawn, payload: { id, variant, times }, delayMs }
}

function draw(mix: Mix, random: Random): Draft['kind'] | 'raw' {
  const entries = Object.entries(mix) as [Draft['kind'] | 'raw', number][]
  let ticket = random.next() * entries.reduce((sum, [, parts]) => sum + parts, 0)
  for (const [name, parts] of entries) {
    ticket -= parts
    if (ticket < 0) return name
  }
  throw new Error('the mix is empty')
}

function malformedBytes(random: Random, n: number): string {
  return random.pick([
    `not json ${n}`,
    `{"v":1,"job_id":"cut off ${n}`,
    `[${n}]`,
    `{"v":99,"n":${n}}`,
    `{"v":1,"n":${n}}`,
  ])
}
