import { type Clock, sleep } from './clock.ts'
import { timeMs } from './envelope.ts'
import { asIdemqError, IdemqError } from './errors.ts'
import type { Events } from './events.ts'
import { outgoingOf } from './internal/codec.ts'
import type { Composed, Composer, EnqueueOptions } from './internal/composer.ts'
import { reach } from './internal/crash-points.ts'
import { callTimeoutMs, ioPauseMs, persist, startTimeoutMs, timed } from './internal/persist.ts'
import type { Sender } from './internal/sender.ts'
import type { AnyJob, Job } from './job.ts'
import type { OutboxClaim, OutboxRow, OutboxStats, OutboxStore } from './store.ts'

/** Where a job was written, and under which identity. */
export interface Enqueued {
  readonly jobId: string
  readonly idempotencyKey: string
}

/** Writes jobs into a table within the user's own transaction: they are sent if, and only if, it commits. */
export class Outbox<Tx = unknown> {
  readonly #store: OutboxStore<Tx>
  readonly #composer: Composer

  constructor(store: OutboxStore<Tx>, composer: Composer) {
    this.#store = store
    this.#composer = composer
  }

  /** @throws IdemqError as `mq.enqueue` does, and what the transaction's client throws */
  async enqueue<In, Out>(
    tx: Tx,
    job: Job<In, Out>,
    payload: NoInfer<In>,
    options: EnqueueOptions = {},
  ): Promise<Enqueued> {
    const composed = await this.#composer.compose(job, payload, options)
    await this.#store.insert(tx, [rowOf(job.queue, composed)])
    return { jobId: composed.envelope.job_id, idempotencyKey: composed.envelope.idempotency_key }
  }

  /** All or nothing: one invalid payload writes no row. */
  async enqueueMany<In, Out>(
    tx: Tx,
    job: Job<In, Out>,
    payloads: readonly NoInfer<In>[],
    options: Omit<EnqueueOptions, 'jobId'> = {},
  ): Promise<Enqueued[]> {
    refuseSharedJobId(job, options)
    const composed: Composed[] = []
    for (const payload of payloads) composed.push(await this.#composer.compose(job, payload, options))
    await this.#store.insert(
      tx,
      composed.map((c) => rowOf(job.queue, c)),
    )
    return composed.map(({ envelope }) => ({ jobId: envelope.job_id, idempotencyKey: envelope.idempotency_key }))
  }

  /** How many rows wait for the relay, and for how long the oldest has. */
  stats(signal: AbortSignal = AbortSignal.timeout(10_000)): Promise<OutboxStats> {
    return this.#store.stats(signal)
  }
}

/** One id for many jobs would make them one job. */
export function refuseSharedJobId(job: AnyJob, options: object): void {
  if ('jobId' in options && options.jobId !== undefined) {
    throw new IdemqError('INVALID_OPTION', `${job.name}: one jobId for many payloads: give each its own, or none`)
  }
}

function rowOf(queue: string, { envelope, body }: Composed): OutboxRow {
  // The relay works the delay out when it sends.
  const { delayMs: _, ...message } = outgoingOf(envelope, body, 0)
  return { queue, ...message, ...(envelope.not_before && { notBeforeMs: timeMs(envelope.not_before) }) }
}

export interface RelayOptions {
  /** Rows per round, from 1. @default 500 */
  readonly batch?: number
  /** How long a crashed relay hides its rows from others, in milliseconds. @default 10_000 */
  readonly leaseMs?: number
  /** Longest wait between looks when nothing rings, in milliseconds. @default 1_000 */
  readonly pollMs?: number
}

export interface RelayHost {
  readonly sender: Sender
  readonly clock: Clock
  readonly events: Events
  readonly maxDelayMs: number
  readonly declare: 'create' | 'check'
  readonly declareQueue: (queue: string) => Promise<void>
}

const relayDefaults = { batch: 500, leaseMs: 10_000, pollMs: 1_000 }

/**
 * Moves committed outbox rows to the broker: sends, waits for the confirm, then marks. A crash in between sends a row
 * twice under the same job id; the inbox absorbs it. Any number may run.
 */
export class Relay {
  readonly #store: OutboxStore
  readonly #host: RelayHost
  readonly #options: Required<RelayOptions>
  readonly #stop = new AbortController()
  #loop: Promise<void> | undefined

  /** @throws IdemqError INVALID_OPTION */
  constructor(store: OutboxStore, host: RelayHost, options: RelayOptions = {}) {
    this.#store = store
    this.#host = host
    this.#options = { ...relayDefaults, ...options }
    for (const [name, value] of Object.entries(this.#options)) {
      if (!(Number.isInteger(value) && value >= 1)) {
        throw new IdemqError('INVALID_OPTION', `mq.relay: ${name} is ${value}, must be an integer from 1`)
      }
    }
  }

  /**
   * @throws IdemqError QUEUE_MISSING where the table is missing and may not be created; BROKER_UNAVAILABLE, BROKER_BUSY
   * after trying for 10 s
   */
  async start(): Promise<void> {
    const { clock, declare, events } = this.#host
    const operation = `prepare the outbox ${this.#store.name}`
    await persist(() => this.#store.prepare(declare, this.#stop.signal), {
      clock,
      signal: this.#stop.signal,
      deadlineMs: clock.monotonicMs() + startTimeoutMs,
      operation,
      onTrouble: (error) => events.emit('trouble', { queue: '', operation, error }),
    })
    this.#loop ??= this.#run()
  }

  /** Ends after the round that is under way. Idempotent. */
  async stop(): Promise<void> {
    this.#stop.abort()
    await this.#loop
  }

  async #run(): Promise<void> {
    const { clock, events } = this.#host
    const { signal } = this.#stop
    for (let failures = 0; !signal.aborted; ) {
      try {
        const { batch, leaseMs } = this.#options
        const claims = await timed(clock, callTimeoutMs, signal, (s) => this.#store.claim(batch, leaseMs, s))
        if (claims.length === 0) await this.#store.wait(this.#options.pollMs, signal)
        else await this.#relay(claims)
        failures = 0
      } catch (thrown) {
        if (signal.aborted) return
        const error = asIdemqError(thrown, 'BROKER_UNAVAILABLE', 'outbox relay')
        events.emit('trouble', { queue: '', operation: 'relay the outbox', error })
        await sleep(clock, ioPauseMs(failures++), signal)
      }
    }
  }

  async #relay(claims: readonly OutboxClaim[]): Promise<void> {
    const { clock, sender, maxDelayMs, declareQueue } = this.#host
    const deadlineMs = clock.monotonicMs() + this.#options.leaseMs
    const errors = new Map<OutboxClaim, unknown>()
    await Promise.all(
      Array.from(
        Map.groupBy(claims, ({ row }) => row.queue),
        async ([queue, rows]) => {
          try {
            await declareQueue(queue)
            const messages = rows.map(({ row }) => {
              const { copyId, jobId, body, partitionKey, ordered, notBeforeMs } = row
              const delayMs = Math.min(maxDelayMs, Math.max(0, (notBeforeMs ?? 0) - clock.now()))
              return { copyId, jobId, body, partitionKey, ordered, delayMs }
            })
            const refused = await sender.sendMany({ name: queue }, messages, deadlineMs, this.#stop.signal)
            for (const [i, error] of refused.entries()) if (error) errors.set(rows[i]!, error)
          } catch (error) {
            // A queue that cannot be had keeps its own rows, not those of the others.
            for (const row of rows) errors.set(row, error)
          }
        },
      ),
    )
    const sent = claims.filter((claim) => !errors.has(claim))
    reach('relay.after_send', () => sent.map(({ row }) => row.jobId))
    // Not with the stop signal: what was sent and not marked is sent again.
    if (sent.length > 0) await timed(clock, callTimeoutMs, undefined, (signal) => this.#store.markSent(sent, signal))
    for (const error of errors.values()) throw error
  }
}
