import { context, propagation, ROOT_CONTEXT } from '@opentelemetry/api'
import type { Clock } from '../clock.ts'
import { type Failure, longestDelayMs } from '../envelope.ts'
import { asError, IdemqError } from '../errors.ts'
import { validatePayload } from '../job.ts'
import type { Claim, Claims } from './claims.ts'
import { reach } from './crash-points.ts'
import type { Entry } from './entry.ts'
import type { Placed } from './in-hand.ts'

/** What `job.step` hands to its callback. */
export interface StepContext {
  /** `<the job's key>/<step name>`: pass it to a provider that honours idempotency keys. The same on every attempt. */
  readonly idempotencyKey: string
  readonly signal: AbortSignal
}

/** What a handler knows about the job it runs. */
export interface JobContext {
  readonly id: string
  readonly name: string
  readonly key: string
  /** The start this is, from 1: counts crashes too. */
  readonly attempt: number
  /** How often the job was replayed from the dead letters. */
  readonly replay: number
  readonly queue: string
  readonly headers: Readonly<Record<string, string>>
  readonly correlationId: string | undefined
  /** Earlier failures, the last few. */
  readonly failures: readonly Failure[]
  /** Aborts at the timeout, when the claim is lost, and when a shutdown runs out of time. Pass it to everything. */
  readonly signal: AbortSignal
  /**
   * Runs `effect` once per key as far as its record goes: a result recorded by an earlier attempt is returned without
   * running it. The window between the effect and its record stays open: a crash there runs it again, so give the
   * provider `idempotencyKey`. Results are JSON, at most 64 KiB; any other is returned but not recorded.
   * @throws whatever `effect` throws; IdemqError CLAIM_LOST; INVALID_OPTION for a name used before in this run;
   * UNSUPPORTED without an inbox and in `handleInTransaction`
   */
  step<T>(name: string, effect: (step: StepContext) => Promise<T> | T): Promise<T>
  /** The job comes back after `delayMs` once the handler returns; no attempt is used and nothing is recorded as done. */
  snooze(delayMs: number): void
}

/** `deaf`: it did not end within the grace after its signal aborted, and may still be running. */
export type HandlerOutcome =
  | { readonly type: 'success'; readonly value: unknown }
  /** `invalid`: the payload does not match the job's schema; the handler was not called. */
  | { readonly type: 'failure'; readonly error: Error; readonly invalid?: true }
  | { readonly type: 'deaf' }

/** Results and step records above this are not stored. */
export const maxResultBytes: number = 64 * 1024

/** What all runs of a worker share. */
export interface JobRunHost {
  readonly claims: Claims
  /** No inbox. */
  readonly unclaimed: boolean
  readonly clock: Clock
  readonly graceMs: number
  /** Aborts when the worker gives up. */
  readonly giveUp: AbortSignal
  readonly warn: (message: string) => void
}

/** One start of one handler. */
export class JobRun implements JobContext, Placed {
  /** Among those that run. */
  place = -1
  readonly #entry: Entry
  readonly #claim: Claim
  readonly #host: JobRunHost
  #controller: AbortController | undefined
  #abortReason: IdemqError | undefined
  #onAbort: (() => void) | undefined
  #snoozeMs: number | undefined
  #over: AbortController | undefined
  #givenUp: IdemqError | undefined
  #steps: Set<string> | undefined

  constructor(entry: Entry, claim: Claim, host: JobRunHost) {
    this.#entry = entry
    this.#claim = claim
    this.#host = host
  }

  get id(): string {
    return this.#entry.envelope.job_id
  }
  get name(): string {
    return this.#entry.envelope.name
  }
  get key(): string {
    return this.#entry.envelope.idempotency_key
  }
  get attempt(): number {
    return this.#claim.attempt
  }
  get replay(): number {
    return this.#entry.envelope.replay
  }
  get queue(): string {
    return this.#entry.registration.job.queue
  }
  get headers(): Readonly<Record<string, string>> {
    return this.#entry.envelope.headers ?? {}
  }
  get correlationId(): string | undefined {
    return this.#entry.envelope.correlation_id
  }
  get failures(): readonly Failure[] {
    return this.#entry.envelope.failures ?? []
  }

  /** Made only for handlers that look at it. */
  get signal(): AbortSignal {
    if (!this.#controller) {
      this.#controller = new AbortController()
      if (this.#abortReason) this.#controller.abort(this.#abortReason)
    }
    return this.#controller.signal
  }

  /** Why the signal aborted, if it did. */
  get abortReason(): IdemqError | undefined {
    return this.#abortReason
  }

  /** Aborts when the handler is given up on: what it still does must not count. */
  get over(): AbortSignal {
    this.#over ??= new AbortController()
    if (this.#givenUp) this.#over.abort(this.#givenUp)
    return this.#over.signal
  }

  /** Set once the handler asked to come back. */
  get snoozeMs(): number | undefined {
    return this.#snoozeMs
  }

  abort(reason: IdemqError): void {
    if (this.#abortReason) return
    this.#abortReason = reason
    this.#controller?.abort(reason)
    this.#onAbort?.()
  }

  snooze(delayMs: number): void {
    if (!(delayMs >= 0 && delayMs <= longestDelayMs)) {
      throw new IdemqError('INVALID_OPTION', `job.snooze(${delayMs}): must be from 0 to ${longestDelayMs} ms`)
    }
    this.#snoozeMs = delayMs
  }

  async step<T>(name: string, effect: (step: StepContext) => Promise<T> | T): Promise<T> {
    const { claims, unclaimed, giveUp, warn } = this.#host
    const claim = this.#claim
    if (unclaimed) {
      throw new IdemqError(
        'UNSUPPORTED',
        `${this.name}: step '${name}' needs an inbox: pass one to mq.worker({ inbox })`,
      )
    }
    if (this.#entry.registration.transactional) {
      throw new IdemqError(
        'UNSUPPORTED',
        `${this.name}: step '${name}' in a transaction: what the handler writes through tx happens once as it is`,
      )
    }
    this.#steps ??= new Set()
    if (this.#steps.has(name)) {
      throw new IdemqError(
        'INVALID_OPTION',
        `${this.name}: step '${name}' twice in one run: name each, e.g. '${name}:1'`,
      )
    }
    this.#steps.add(name)
    const recorded = claim.steps.get(name)
    if (recorded !== undefined) return (recorded === '' ? undefined : JSON.parse(recorded)) as T
    const run = this
    const result = await effect({
      idempotencyKey: `${this.key}/${name}`,
      get signal() {
        return run.signal
      },
    })
    reach('worker.after_effect', () => [this.id])
    const json = jsonOf(result)
    if (json === undefined || Buffer.byteLength(json) > maxResultBytes) {
      const why = json === undefined ? 'is not JSON' : `exceeds ${maxResultBytes} bytes`
      warn(`${this.name}: the result of step '${name}' ${why} and is not recorded`)
    } else if (!(await claims.record(claim, name, json, giveUp))) {
      throw new IdemqError('CLAIM_LOST', `${this.name} ${this.id}: another worker took over during step '${name}'`)
    }
    reach('worker.after_memo', () => [this.id])
    return result
  }

  /**
   * Calls `handler` with the validated payload and waits for it, for its timeout and the grace after it. Never rejects.
   */
  invoke(handler: (payload: unknown) => unknown): Promise<HandlerOutcome> {
    const { clock, graceMs } = this.#host
    const { job } = this.#entry.registration
    this.#claim.renewUntilMs = clock.monotonicMs() + job.timeoutMs + graceMs
    return new Promise((resolve) => {
      const done = (outcome: HandlerOutcome): void => {
        cancel()
        resolve(outcome)
      }
      let cancel = clock.schedule(
        () => this.abort(new IdemqError('TIMEOUT', `${job.name} did not end within ${job.timeoutMs} ms`)),
        job.timeoutMs,
      )
      this.#onAbort = () => {
        cancel()
        cancel = clock.schedule(() => {
          this.#givenUp = new IdemqError('TIMEOUT', `${job.name} did not end within its grace of ${graceMs} ms`)
          this.#over?.abort(this.#givenUp)
          resolve({ type: 'deaf' })
        }, graceMs)
      }
      if (this.#abortReason) this.#onAbort()
      const succeed = (value: unknown): void => done({ type: 'success', value })
      const fail = (thrown: unknown): void => done({ type: 'failure', error: asError(thrown) })
      const refuse = (thrown: unknown): void => done({ type: 'failure', error: asError(thrown), invalid: true })
      const start = (payload: unknown): void => {
        try {
          const result = this.#call(handler, payload)
          if (isThenable(result)) result.then(succeed, fail)
          else succeed(result)
        } catch (thrown) {
          fail(thrown)
        }
      }
      try {
        const payload = validatePayload(job, this.#entry.envelope.payload)
        if (payload instanceof Promise) payload.then(start, refuse)
        else start(payload)
      } catch (thrown) {
        refuse(thrown)
      }
      reach('worker.in_handler', () => [this.id])
    })
  }

  /** Within the trace context that enqueued the job, if any. */
  #call(handler: (payload: unknown) => unknown, payload: unknown): unknown {
    const { traceparent, tracestate } = this.#entry.envelope
    if (!traceparent) return handler(payload)
    const parent = propagation.extract(ROOT_CONTEXT, tracestate ? { traceparent, tracestate } : { traceparent })
    return context.with(parent, () => handler(payload))
  }
}

/** '' for undefined; undefined for what is not JSON. */
function jsonOf(value: unknown): string | undefined {
  try {
    return JSON.stringify(value) ?? ''
  } catch {
    return undefined
  }
}

function isThenable(value: unknown): value is PromiseLike<unknown> {
  return typeof value === 'object' && value !== null && typeof (value as PromiseLike<unknown>).then === 'function'
}
