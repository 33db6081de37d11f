import { context, propagation } from '@opentelemetry/api'
import type { Clock } from '../clock.ts'
import type { Codec, Driver } from '../driver.ts'
import {
  type Envelope,
  isHeaders,
  isText,
  longestDelayMs,
  maxNesting,
  nestsDeeper,
  reserveBytes,
  textRule,
  wireTime,
} from '../envelope.ts'
import { asError, IdemqError } from '../errors.ts'
import { type AnyJob, byJobId, validatePayload } from '../job.ts'
import { codecOf } from './codec.ts'
import { newJobId } from './job-id.ts'

export interface EnqueueOptions {
  /** Milliseconds before it may run, from 0. Never early. @default 0 */
  readonly delayMs?: number
  /** Jobs of one key run one at a time, in order, where the broker can (`capabilities.ordering`). */
  readonly orderingKey?: string
  /** To send again what may have been sent: the same id twice is the same job. @default a new UUIDv7 */
  readonly jobId?: string
  /** Ties jobs of one business process together. */
  readonly correlationId?: string
  /** The job or event that caused this one. */
  readonly causationId?: string
  readonly headers?: Readonly<Record<string, string>>
  /** Dead-lettered instead of started after this many milliseconds from now. @default never */
  readonly expiresInMs?: number
}

/** A job, validated and encoded, ready for a broker or an outbox. */
export interface Composed {
  readonly envelope: Envelope
  readonly body: Uint8Array
  readonly delayMs: number
}

/** Turns payloads into envelopes. Whatever can be refused is refused here, before anything is sent. */
export class Composer {
  readonly #driver: Driver
  readonly #codec: Codec
  readonly #clock: Clock

  constructor(driver: Driver, clock: Clock) {
    this.#driver = driver
    this.#codec = codecOf(driver)
    this.#clock = clock
  }

  /**
   * @throws IdemqError INVALID_PAYLOAD naming each path, BODY_TOO_LARGE, INVALID_OPTION, UNSUPPORTED. Throws, or
   * rejects where the schema is asynchronous.
   */
  compose(job: AnyJob, payload: unknown, options: EnqueueOptions): Composed | Promise<Composed> {
    this.#check(job, options)
    const valid = validatePayload(job, payload)
    if (valid instanceof Promise) return valid.then((v) => this.#compose(job, payload, v, options))
    return this.#compose(job, payload, valid, options)
  }

  #check(job: AnyJob, options: EnqueueOptions): void {
    const { capabilities, name } = this.#driver
    const { delayMs = 0, orderingKey, expiresInMs, headers } = options
    if (!(delayMs >= 0 && delayMs <= longestDelayMs)) {
      throw new IdemqError('INVALID_OPTION', `${job.name}: delayMs is ${delayMs}, must be from 0 to ${longestDelayMs}`)
    }
    if (expiresInMs !== undefined && !(expiresInMs > delayMs && expiresInMs <= longestDelayMs)) {
      throw new IdemqError(
        'INVALID_OPTION',
        `${job.name}: expiresInMs is ${expiresInMs}, must be above delayMs and at most ${longestDelayMs}`,
      )
    }
    if (capabilities.retentionMs !== undefined && delayMs >= capabilities.retentionMs) {
      throw new IdemqError(
        'UNSUPPORTED',
        `${job.name}: ${name} keeps messages for ${capabilities.retentionMs} ms, a delay of ${delayMs} ms would outlive it`,
      )
    }
    if (orderingKey !== undefined && capabilities.ordering === 'none') {
      throw new IdemqError('UNSUPPORTED', `${job.name}: ${name} keeps no order, so orderingKey cannot be honoured`)
    }
    for (const field of ['orderingKey', 'jobId', 'correlationId', 'causationId'] as const) {
      const value = options[field]
      const maxLength = field === 'jobId' ? 128 : 1024
      if (value !== undefined && !isText(value, maxLength)) {
        throw new IdemqError('INVALID_OPTION', `${job.name}: ${field} ${textRule(maxLength)}`)
      }
    }
    if (headers !== undefined && !isHeaders(headers)) {
      throw new IdemqError('INVALID_OPTION', `${job.name}: headers must be an object of strings`)
    }
  }

  #compose(job: AnyJob, payload: unknown, valid: unknown, options: EnqueueOptions): Composed {
    const { delayMs = 0, orderingKey, correlationId, causationId, headers, expiresInMs } = options
    const jobId = options.jobId ?? newJobId()
    const key = keyOf(job, jobId, valid)
    if (!isText(key, 1024)) {
      throw new IdemqError('INVALID_PAYLOAD', `${job.name}: its idempotency key ${textRule(1024)}`)
    }
    if (!isCarried(payload)) {
      throw new IdemqError('INVALID_PAYLOAD', `${job.name}: a payload must be JSON, got ${typeof payload}`)
    }
    const nowMs = this.#clock.now()
    const now = wireTime(nowMs)
    const envelope: Envelope = {
      v: 1,
      job_id: jobId,
      name: job.name,
      idempotency_key: key,
      attempt: 1,
      replay: 0,
      payload,
      created_at: now,
      first_enqueued_at: now,
      ...(delayMs > 0 && { not_before: wireTime(nowMs + delayMs) }),
      ...(expiresInMs !== undefined && { expires_at: wireTime(nowMs + expiresInMs) }),
      ...(orderingKey !== undefined && { ordering_key: orderingKey }),
      ...(correlationId !== undefined && { correlation_id: correlationId }),
      ...(causationId !== undefined && { causation_id: causationId }),
      ...(headers && { headers }),
      ...traceContext(),
    }
    return { envelope, body: this.#encode(job, envelope), delayMs }
  }

  #encode(job: AnyJob, envelope: Envelope): Uint8Array {
    const { capabilities, name } = this.#driver
    let body: Uint8Array
    try {
      body = this.#codec.encode(envelope)
    } catch (cause) {
      if (cause instanceof IdemqError) throw cause
      throw new IdemqError('INVALID_PAYLOAD', `${job.name}: not JSON: ${(cause as Error).message}`, cause)
    }
    if (nestsDeeper(body, maxNesting)) {
      throw new IdemqError('INVALID_PAYLOAD', `${job.name}: nested deeper than ${maxNesting} levels`)
    }
    const limit = capabilities.maxBodyBytes - reserveBytes
    if (body.byteLength > limit) {
      throw new IdemqError(
        'BODY_TOO_LARGE',
        `${job.name}: ${body.byteLength} bytes encoded, ${name} takes ${limit} (${reserveBytes} are kept for failures): ` +
          'store the data elsewhere and enqueue a reference',
      )
    }
    return body
  }
}

/** The active trace, as W3C Trace Context headers; empty without an OpenTelemetry SDK. */
function traceContext(): { traceparent?: string; tracestate?: string } {
  const carrier: { traceparent?: string; tracestate?: string } = {}
  propagation.inject(context.active(), carrier)
  return carrier
}

function keyOf(job: AnyJob, jobId: string, valid: unknown): string {
  if (job.idempotencyKey === byJobId) return jobId
  try {
    return job.idempotencyKey(valid)
  } catch (cause) {
    throw new IdemqError('INVALID_PAYLOAD', `${job.name}: its idempotencyKey threw: ${asError(cause).message}`, cause)
  }
}

/** False for what JSON would leave out. */
function isCarried(payload: unknown): boolean {
  if (payload === undefined || typeof payload === 'function' || typeof payload === 'symbol') return false
  return typeof (payload as { toJSON?: unknown } | null)?.toJSON !== 'function' || JSON.stringify(payload) !== undefined
}
