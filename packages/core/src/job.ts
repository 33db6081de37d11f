/** What a job is: shared by the code that enqueues it and the code that works it. */
import type { StandardSchemaV1 } from '@standard-schema/spec'
import { fingerprintOf, isText, textRule } from './envelope.ts'
import { IdemqError } from './errors.ts'
import { type Backoff, exponential } from './policy/backoff.ts'
import { type RetryBudget, retryBudget } from './policy/budget.ts'
import type { Circuit } from './policy/circuit.ts'
import { classifyFailure, type FailureClass } from './policy/classify.ts'

/** Says aloud that a job has no business key: its job id is its idempotency key, so only redeliveries are deduplicated. */
export const byJobId: unique symbol = Symbol('idemq.byJobId')

export interface RetryPolicy {
  /** Starts in all, the first included, from 1. @default 5 */
  readonly maxAttempts?: number
  /** @default exponential({ baseMs: 1_000, maxMs: 900_000 }) */
  readonly backoff?: Backoff
}

export interface JobOptions<In, Out> {
  /** Name of the queue: 1 to 100 of letters, digits, `-`, `_`, `.`. */
  readonly queue: string
  /** Any Standard Schema (zod, valibot, arktype …). The input goes on the wire, the handler gets the output. */
  readonly payload: StandardSchemaV1<In, Out>
  /** Names the business action, e.g. `charge:<orderId>:<paymentAttempt>`; 1 to 1,024 characters. */
  readonly idempotencyKey: ((payload: Out) => string) | typeof byJobId
  /** Milliseconds a handler may take, from 1; its `signal` aborts then. @default 30_000 */
  readonly timeoutMs?: number
  readonly retry?: RetryPolicy
  /** Overrides the default classification; `undefined` falls back to it. */
  readonly classify?: (error: Error) => FailureClass | undefined
  /** Selects what of the payload makes two jobs with one key "the same". @default all of it */
  readonly fingerprint?: (payload: In) => unknown
  /** Keeps the handler's result (JSON, up to 64 KiB) in the inbox; `deduplicated` events carry it. @default false */
  readonly storeResult?: boolean
  /** @default none */
  readonly circuit?: Circuit
  /** Share one between jobs that call the same dependency. @default one of its own: 20 % of traffic + 10/s */
  readonly budget?: RetryBudget
}

/** A job as {@link defineJob} made it: validated, every default filled in. Immutable. */
export interface Job<In = unknown, Out = In> {
  readonly name: string
  readonly queue: string
  readonly payload: StandardSchemaV1<In, Out>
  readonly idempotencyKey: ((payload: Out) => string) | typeof byJobId
  readonly timeoutMs: number
  readonly maxAttempts: number
  readonly backoff: Backoff
  readonly classify: (error: Error) => FailureClass
  readonly fingerprint: (payload: unknown) => string
  readonly storeResult: boolean
  readonly circuit: Circuit | undefined
  readonly budget: RetryBudget
}

/** Any job, whatever its payload. */
// biome-ignore lint/suspicious/noExplicitAny: payload types are contravariant in their key function; only `any` admits all
export type AnyJob = Job<any, any>

const defaultTimeoutMs = 30_000
const defaultMaxAttempts = 5
const defaultBackoff = exponential({ baseMs: 1_000, maxMs: 900_000 })

/**
 * Defines a job once, for both sides.
 * @throws IdemqError INVALID_OPTION naming the option
 */
export function defineJob<In, Out>(name: string, options: JobOptions<In, Out>): Job<In, Out> {
  const { retry = {}, timeoutMs = defaultTimeoutMs, fingerprint, classify } = options
  const { maxAttempts = defaultMaxAttempts, backoff = defaultBackoff } = retry
  const refuse = (what: string): never => {
    throw new IdemqError('INVALID_OPTION', `defineJob('${name}'): ${what}`)
  }
  if (!isText(name, 255)) refuse(`the name ${textRule(255)}`)
  checkQueueName(options.queue, `defineJob('${name}')`)
  if (typeof options.payload?.['~standard']?.validate !== 'function') refuse('payload must be a Standard Schema')
  if (typeof options.idempotencyKey !== 'function' && options.idempotencyKey !== byJobId) {
    refuse('idempotencyKey must be a function of the payload, or byJobId to say that there is no business key')
  }
  if (!(timeoutMs >= 1 && timeoutMs < Number.POSITIVE_INFINITY))
    refuse(`timeoutMs is ${timeoutMs}, must be 1 ms or more`)
  if (!(Number.isInteger(maxAttempts) && maxAttempts >= 1)) {
    refuse(`retry.maxAttempts is ${maxAttempts}, must be an integer from 1`)
  }
  return Object.freeze({
    name,
    queue: options.queue,
    payload: options.payload,
    idempotencyKey: options.idempotencyKey,
    timeoutMs,
    maxAttempts,
    backoff,
    classify: classify ? (error: Error) => classify(error) ?? classifyFailure(error) : classifyFailure,
    fingerprint: fingerprint
      ? (payload: unknown) => fingerprintOf(wireForm(fingerprint(payload as In)))
      : fingerprintOf,
    storeResult: options.storeResult ?? false,
    circuit: options.circuit,
    budget: options.budget ?? retryBudget(),
  })
}

/** As JSON would carry it: a Date is its text, not an object without fields. */
function wireForm(value: unknown): unknown {
  const json = JSON.stringify(value)
  return json === undefined ? null : JSON.parse(json)
}

const queueName = /^[A-Za-z0-9][A-Za-z0-9._-]{0,99}$/

/** @throws IdemqError INVALID_OPTION */
export function checkQueueName(queue: string, where: string): void {
  if (typeof queue !== 'string' || !queueName.test(queue)) {
    throw new IdemqError(
      'INVALID_OPTION',
      `${where}: queue '${queue}' must have 1 to 100 letters, digits, '-', '_' or '.', and start with a letter or digit`,
    )
  }
}

/**
 * The payload as its schema returns it.
 * @throws IdemqError INVALID_PAYLOAD naming each path, never the values
 */
export function validatePayload<In, Out>(job: Job<In, Out>, payload: unknown): Out | Promise<Out> {
  const result = job.payload['~standard'].validate(payload)
  return result instanceof Promise ? result.then((r) => accept(job, r)) : accept(job, result)
}

function accept<Out>(job: AnyJob, result: StandardSchemaV1.Result<Out>): Out {
  if (!result.issues) return result.value
  const issues = result.issues.slice(0, 10).map(({ path, message }) => {
    const where = (path ?? []).map((part) => String(typeof part === 'object' ? part.key : part)).join('.')
    return `${where || '(payload)'}: ${message}`
  })
  throw new IdemqError('INVALID_PAYLOAD', `${job.name}: ${issues.join('; ')}`)
}
