import type { Clock } from '../clock.ts'
import type { QueueRef } from '../driver.ts'
import { asError, asIdemqError, IdemqError, PermanentError } from '../errors.ts'
import { type Events, type JobRef, jobRef } from '../events.ts'
import type { CircuitOutcome } from '../policy/circuit.ts'
import type { Claim, Claims } from './claims.ts'
import { type Endings, retryDelay } from './endings.ts'
import type { Ending, Entry } from './entry.ts'
import type { Holds } from './holds.ts'
import { InHand } from './in-hand.ts'
import { type HandlerOutcome, JobRun, type JobRunHost, maxResultBytes } from './job-run.ts'
import type { Quarantine } from './quarantine.ts'
import { transactionContext } from './transaction-context.ts'

export interface ExecutionOptions {
  readonly queue: QueueRef
  readonly claims: Claims
  /** No inbox: losing the delivery is losing the job. */
  readonly unclaimed: boolean
  readonly holds: Holds
  readonly endings: Endings
  readonly quarantine: Quarantine
  readonly events: Events
  readonly clock: Clock
  readonly graceMs: number
  readonly random: () => number
  /** Aborts when the worker gives up on what is in hand. */
  readonly giveUp: AbortSignal
}

/** How far the transaction of a start came, where its handler asked for one. */
class TransactionProgress {
  called = false
  committed = false
  result: string | undefined = undefined
}

/** Until a job whose transaction could not begin is tried again. */
const unbegunDelayMs = 1_000

/** Runs claimed jobs and decides how each ends. */
export class Execution {
  readonly #options: ExecutionOptions
  readonly #runHost: JobRunHost
  readonly #running = new InHand<JobRun>()
  #starts = 0
  #retries = 0

  constructor(options: ExecutionOptions) {
    this.#options = options
    const { claims, unclaimed, clock, graceMs, giveUp } = options
    this.#runHost = { claims, unclaimed, clock, graceMs, giveUp, warn: (message) => this.#warn(message) }
  }

  get counts(): { running: number; starts: number; retries: number } {
    return { running: this.#running.size, starts: this.#starts, retries: this.#retries }
  }

  /** Aborts every handler that runs. */
  abort(reason: IdemqError): void {
    for (const run of this.#running.all()) run.abort(reason)
  }

  /** One start. `endStart` is called when the handler is done with its slot; resolves when the delivery has ended. */
  async run(entry: Entry, claim: Claim, endStart: (outcome: CircuitOutcome) => void): Promise<Ending> {
    const { queue, events, clock, holds, endings, quarantine, unclaimed } = this.#options
    const { job } = entry.registration
    const run = new JobRun(entry, claim, this.#runHost)
    let lost = false
    const onLost = (): void => {
      lost = true
      if (events.wants('claim_lost')) events.emit('claim_lost', this.#ref(entry, claim))
      run.abort(new IdemqError('CLAIM_LOST', `${job.name} ${run.id}: another worker took over`))
    }
    claim.onLost = onLost
    // With an inbox the claim decides who owns the job; without one, the delivery does.
    if (unclaimed) holds.onLost(entry.delivery, onLost)
    this.#running.add(run)
    quarantine.started(entry)
    this.#starts++
    if (claim.attempt === 1) this.#ask(entry, 'budget', () => job.budget.deposit(clock), undefined)
    else this.#retries++
    if (events.wants('started')) events.emit('started', this.#ref(entry, claim))
    const startedAtMs = clock.monotonicMs()

    const transaction = new TransactionProgress()
    const outcome = await run.invoke((payload) => this.#call(entry, claim, run, payload, transaction))
    const { called, committed, result } = transaction

    this.#running.delete(run)
    // What follows must keep the claim however long the broker takes; a deaf handler must not.
    claim.renewUntilMs = outcome.type === 'deaf' ? clock.monotonicMs() : Number.POSITIVE_INFINITY
    const durationMs = clock.monotonicMs() - startedAtMs
    const returned = outcome.type === 'success' && run.snoozeMs === undefined
    if (committed || returned) {
      endStart(lost && !committed ? 'neutral' : 'success')
      const succeeded = (): void => {
        if (events.wants('succeeded')) events.emit('succeeded', { ...this.#ref(entry, claim), durationMs })
      }
      if (!lost || committed) succeeded()
      if (committed) return endings.completed(entry, result)
      // Even where the lease seems over: only the token decides, and a lost one answers so.
      const ending = await endings.complete(entry, claim, this.#resultOf(entry, returnedBy(outcome)))
      if (lost && ending.type === 'completed') succeeded()
      return ending
    }
    if (lost) {
      endStart('neutral')
      return endings.handBack(entry)
    }
    if (run.snoozeMs !== undefined && (outcome.type === 'success' || isRollback(outcome))) {
      endStart('success')
      return endings.comeBack(entry, claim, run.snoozeMs, 'snoozed')
    }
    if (entry.registration.transactional && !called && !(outcome.type === 'failure' && outcome.invalid)) {
      // The store let no transaction begin: that is nobody's attempt.
      endStart('neutral')
      const error = asIdemqError(errorOf(outcome, run, job.name), 'BROKER_UNAVAILABLE', 'begin a transaction')
      events.emit('trouble', { queue: queue.name, operation: 'begin a transaction', error })
      return endings.comeBack(entry, claim, unbegunDelayMs, 'busy')
    }
    return this.#failed(entry, claim, run, outcome, durationMs, endStart)
  }

  /** Calls the handler, within the inbox's transaction if it asked for that. */
  #call(entry: Entry, claim: Claim, run: JobRun, payload: unknown, transaction: TransactionProgress): unknown {
    const { claims, giveUp } = this.#options
    const { handler, transactional } = entry.registration
    if (!transactional) return handler(payload, run)
    return claims.transact(
      claim,
      async (tx) => {
        transaction.called = true
        const value = await transactionContext.run(true, async () => handler(payload, run, tx))
        if (run.snoozeMs !== undefined) throw new RollbackForSnooze()
        return value
      },
      (value) => {
        transaction.result = this.#resultOf(entry, value)
        return transaction.result
      },
      AbortSignal.any([giveUp, run.over]),
      () => {
        transaction.committed = true
      },
    )
  }

  #failed(
    entry: Entry,
    claim: Claim,
    run: JobRun,
    outcome: HandlerOutcome,
    durationMs: number,
    endStart: (outcome: CircuitOutcome) => void,
  ): Promise<Ending> {
    const { events, clock, random, endings } = this.#options
    const { job } = entry.registration
    const error = errorOf(outcome, run, job.name)
    if (run.abortReason?.code === 'ABORTED') {
      endStart('neutral')
      // A handler that heard the shutdown gives its attempt back; one that did not may still be running: its claim
      // must lapse by itself, or the job would be doubled.
      if (outcome.type !== 'deaf') return endings.comeBack(entry, claim, 0, 'drain')
      return Promise.reject(error)
    }
    if (error instanceof IdemqError && error.code === 'COMMIT_UNKNOWN') {
      endStart('neutral')
      return Promise.reject(error)
    }
    const invalid = outcome.type === 'failure' && outcome.invalid === true
    const permanent = invalid || this.#ask(entry, 'classify', () => job.classify(error), 'transient') === 'permanent'
    // A dependency that answered "no" is well.
    endStart(permanent ? 'success' : 'failure')
    if (events.wants('failed')) events.emit('failed', { ...this.#ref(entry, claim), error, permanent, durationMs })
    if (permanent) return endings.bury(entry, claim, invalid ? 'invalid_payload' : 'permanent', error)
    if (claim.attempt >= job.maxAttempts) return endings.bury(entry, claim, 'exhausted', error)
    const { delayMs, overBudget } = this.#ask(
      entry,
      'retry policy',
      () => retryDelay(entry, claim.attempt, error, clock, random),
      { delayMs: fallbackDelayMs, overBudget: false },
    )
    if (events.wants('retry_scheduled')) {
      events.emit('retry_scheduled', { ...this.#ref(entry, claim), delayMs, overBudget })
    }
    return endings.retry(entry, claim, error, delayMs)
  }

  /** What a policy of the job says; a policy that throws must not cost the job. */
  #ask<T>(entry: Entry, policy: string, ask: () => T, fallback: T): T {
    try {
      return ask()
    } catch (thrown) {
      this.#warn(`${entry.envelope.name}: its ${policy} threw: ${asError(thrown).message}`)
      return fallback
    }
  }

  /** JSON of what a handler returned, where the job keeps results. A success stays one if its result cannot be kept. */
  #resultOf(entry: Entry, value: unknown): string | undefined {
    if (!entry.registration.job.storeResult) return undefined
    let why = `exceeds ${maxResultBytes} bytes`
    try {
      const json = JSON.stringify(value)
      if (json === undefined || Buffer.byteLength(json) <= maxResultBytes) return json
    } catch (thrown) {
      why = `is not JSON (${asError(thrown).message})`
    }
    this.#warn(`${entry.envelope.name}: its result ${why} and is not stored`)
    return undefined
  }

  #warn(message: string): void {
    const { events, queue } = this.#options
    events.emit('warning', { queue: queue.name, message })
  }

  #ref(entry: Entry, claim: Claim): JobRef {
    const { name, group } = this.#options.queue
    return jobRef(entry.envelope, name, group, claim.attempt)
  }
}

function returnedBy(outcome: HandlerOutcome): unknown {
  return outcome.type === 'success' ? outcome.value : undefined
}

/** A timeout is the cause, whatever the handler threw when it heard of it; but a "no" stays a "no". */
function errorOf(outcome: HandlerOutcome, run: JobRun, job: string): Error {
  const timedOut = run.abortReason?.code === 'TIMEOUT'
  if (outcome.type === 'failure' && (!timedOut || outcome.error instanceof PermanentError)) return outcome.error
  return run.abortReason ?? new IdemqError('TIMEOUT', `${job} did not end`)
}

/** Rolls a transaction back because its handler asked to come back later. Never seen outside. */
class RollbackForSnooze extends Error {}

function isRollback(outcome: HandlerOutcome): boolean {
  return outcome.type === 'failure' && outcome.error instanceof RollbackForSnooze
}

/** The pause before a retry whose policy cannot say. */
const fallbackDelayMs = 1_000
