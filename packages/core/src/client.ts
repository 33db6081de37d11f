import type { Adapter } from './adapter.ts'
import { type Clock, systemClock } from './clock.ts'
import { type AdapterLoaders, connectAdapter } from './connect-adapter.ts'
import { DeadLetters } from './dead-letters.ts'
import type { Driver, QueueRef } from './driver.ts'
import { asIdemqError, IdemqError } from './errors.ts'
import { Events, type EventType, type IdemqEvent, jobRef, type Listener } from './events.ts'
import { outgoingOf } from './internal/codec.ts'
import { type Composed, Composer, type EnqueueOptions } from './internal/composer.ts'
import { reach } from './internal/crash-points.ts'
import { persist, throwFirst, timed } from './internal/persist.ts'
import { Quarantine } from './internal/quarantine.ts'
import { Sender } from './internal/sender.ts'
import { transactionContext } from './internal/transaction-context.ts'
import { checkQueueName, type Job } from './job.ts'
import { type Enqueued, Outbox, Relay, type RelayOptions, refuseSharedJobId } from './outbox.ts'
import { type QueueStatus, readStatus } from './status.ts'
import type { InboxStore, OutboxStore } from './store.ts'
import { Worker, type WorkerOptions } from './worker.ts'

export interface ConnectOptions {
  /** 'create' makes missing queues and tables; 'check' only looks and refuses. @default 'create' */
  readonly declare?: 'create' | 'check'
  /** How long `enqueue` tries, in milliseconds, from 1. @default 10_000 */
  readonly sendTimeoutMs?: number
  /** Time, for tests. @default the system's */
  readonly clock?: Clock
  /** Adapters by URL scheme, for bundlers and third parties. @default found by package name */
  readonly adapters?: AdapterLoaders
}

/** What became of one payload of `enqueueMany`. */
export type EnqueueResult =
  | ({ readonly status: 'stored' } & Enqueued)
  | { readonly status: 'failed'; readonly error: IdemqError }

export interface CallOptions {
  readonly signal?: AbortSignal
}

const defaultSendTimeoutMs = 10_000

/**
 * Connects to a broker.
 * @param target a URL (`sqlite:./jobs.db`, …; the scheme names the adapter), a driver, or what an adapter's factory made
 * @throws IdemqError INVALID_URL, UNKNOWN_SCHEME, MISSING_PACKAGE (says what to install), INVALID_OPTION, or what the
 * adapter says
 */
export async function connect(target: string | URL | Driver | Adapter, options: ConnectOptions = {}): Promise<Mq> {
  const { sendTimeoutMs = defaultSendTimeoutMs, declare = 'create', clock = systemClock, adapters = {} } = options
  if (!(sendTimeoutMs >= 1)) {
    throw new IdemqError('INVALID_OPTION', `connect: sendTimeoutMs is ${sendTimeoutMs}, must be 1 ms or more`)
  }
  if (declare !== 'create' && declare !== 'check') {
    throw new IdemqError('INVALID_OPTION', `connect: declare is '${declare}', must be 'create' or 'check'`)
  }
  const adapter = await resolve(target, clock, adapters)
  return new Mq(adapter, { declare, sendTimeoutMs, clock })
}

function resolve(target: string | URL | Driver | Adapter, clock: Clock, adapters: AdapterLoaders): Promise<Adapter> {
  if (typeof target === 'string' || target instanceof URL) return connectAdapter(target, { clock }, adapters)
  if (typeof target !== 'object' || target === null) {
    throw new IdemqError('INVALID_OPTION', `connect: needs a URL, a driver or an adapter, got ${String(target)}`)
  }
  return Promise.resolve('driver' in target ? target : { driver: target })
}

/** A connection to one broker: enqueues, makes workers, looks at queues. */
export class Mq {
  readonly driver: Driver
  /** The broker's natural inbox, if it has one. */
  readonly inbox: InboxStore | undefined
  readonly #outboxStore: OutboxStore | undefined
  readonly #options: Required<Omit<ConnectOptions, 'adapters'>>
  readonly #events: Events
  readonly #sender: Sender
  readonly #composer: Composer
  readonly #quarantine: Quarantine
  readonly #declared = new Map<string, Promise<void>>()
  readonly #workers = new Set<Worker<never>>()
  readonly #relays = new Set<Relay>()
  readonly #sending = new Set<Promise<unknown>>()
  #closing: Promise<void> | undefined
  #closed = false

  /** Use {@link connect}. */
  constructor(adapter: Adapter, options: Required<Omit<ConnectOptions, 'adapters'>>) {
    this.driver = adapter.driver
    this.inbox = adapter.inbox
    this.#outboxStore = adapter.outbox
    this.#options = options
    this.#events = new Events(() => options.clock.now())
    this.#sender = new Sender(adapter.driver, options.clock)
    this.#composer = new Composer(adapter.driver, options.clock)
    this.#quarantine = new Quarantine(options.clock)
  }

  /**
   * Resolves once the broker stored the job as durably as its manifest says. A repeat of a call that failed is safe
   * with the same business key, or with `jobId`.
   * @throws IdemqError INVALID_PAYLOAD (names each path), BODY_TOO_LARGE, INVALID_OPTION, UNSUPPORTED (also inside
   * `handleInTransaction`): nothing was sent.
   * SEND_UNKNOWN: it may have been. ABORTED: not sent. Else what the broker says, after trying for `sendTimeoutMs`
   */
  async enqueue<In, Out>(
    job: Job<In, Out>,
    payload: NoInfer<In>,
    options: EnqueueOptions & CallOptions = {},
  ): Promise<Enqueued> {
    const composed = await this.#composer.compose(job, payload, options)
    await this.#declare(job.queue)
    const [error] = await this.#send(job.queue, [composed], options.signal)
    if (error) throw error
    return enqueuedOf(composed)
  }

  /**
   * Enqueues many in batches: one answer a payload, in order; one that is refused does not stop the others. Rejects
   * only if the queue itself cannot be used.
   */
  async enqueueMany<In, Out>(
    job: Job<In, Out>,
    payloads: readonly NoInfer<In>[],
    options:
      | (Omit<EnqueueOptions, 'jobId'> & CallOptions)
      | ((payload: NoInfer<In>, index: number) => EnqueueOptions & CallOptions) = {},
  ): Promise<EnqueueResult[]> {
    refuseSharedJobId(job, options)
    await this.#declare(job.queue)
    const results = new Array<EnqueueResult>(payloads.length)
    const fail = (index: number, error: unknown): void => {
      results[index] = { status: 'failed', error: asIdemqError(error, 'INVALID_PAYLOAD', job.name) }
    }
    const ready: { index: number; composed: Composed; signal: AbortSignal | undefined }[] = []
    const validating: Promise<void>[] = []
    for (const [index, payload] of payloads.entries()) {
      try {
        const itemOptions = typeof options === 'function' ? options(payload, index) : options
        const { signal } = itemOptions
        const composed = this.#composer.compose(job, payload, itemOptions)
        if (composed instanceof Promise) {
          const added = composed.then((late) => void ready.push({ index, composed: late, signal }))
          validating.push(added.catch((error) => fail(index, error)))
        } else ready.push({ index, composed, signal })
      } catch (error) {
        fail(index, error)
      }
    }
    await Promise.all(validating)
    // Those of one signal, as a rule all, are sent as one.
    await Promise.all(
      Array.from(
        Map.groupBy(ready, ({ signal }) => signal),
        async ([signal, group]) => {
          const errors = await this.#send(
            job.queue,
            group.map(({ composed }) => composed),
            signal,
          )
          group.forEach(({ index, composed }, i) => {
            if (errors[i]) fail(index, errors[i])
            else results[index] = { status: 'stored', ...enqueuedOf(composed) }
          })
        },
      ),
    )
    return results
  }

  /** @throws IdemqError INVALID_OPTION */
  worker<Tx = unknown>(options: WorkerOptions<Tx> = {}): Worker<Tx> {
    this.#assertOpen('work')
    const worker = new Worker<Tx>(
      {
        driver: this.driver,
        naturalInbox: this.inbox,
        declare: this.#options.declare,
        sender: this.#sender,
        events: this.#events,
        clock: this.#options.clock,
        quarantine: this.#quarantine,
        random: Math.random,
      },
      options,
    )
    this.#workers.add(worker as Worker<never>)
    return worker
  }

  /** @throws IdemqError INVALID_OPTION on a queue name, UNSUPPORTED on a group the broker does not have */
  deadLetters(queue: string, options: { readonly group?: string } = {}): DeadLetters {
    const ref = this.#ref(queue, options.group)
    return new DeadLetters(ref, {
      driver: this.driver,
      sender: this.#sender,
      events: this.#events,
      clock: this.#options.clock,
      ready: () => this.#declare(queue),
    })
  }

  /** @throws IdemqError UNSUPPORTED where the broker has no outbox of its own and none is given */
  outbox<Tx = unknown>(store?: OutboxStore<Tx>): Outbox<Tx> {
    return new Outbox(this.#outbox(store as OutboxStore | undefined) as OutboxStore<Tx>, this.#composer)
  }

  /** @throws IdemqError UNSUPPORTED as {@link outbox}, INVALID_OPTION */
  relay(options: RelayOptions & { readonly outbox?: OutboxStore<never> } = {}): Relay {
    this.#assertOpen('work')
    const { outbox, ...relayOptions } = options
    const relay = new Relay(
      this.#outbox(outbox as OutboxStore | undefined),
      {
        sender: this.#sender,
        clock: this.#options.clock,
        events: this.#events,
        maxDelayMs: this.driver.capabilities.maxDelayMs ?? Number.POSITIVE_INFINITY,
        declare: this.#options.declare,
        declareQueue: (queue) => this.#declare(queue),
      },
      relayOptions,
    )
    this.#relays.add(relay)
    return relay
  }

  /** Where is it stuck, how many are failing, what happens next. */
  async status(queue: string, options: { readonly group?: string } & CallOptions = {}): Promise<QueueStatus> {
    const ref = this.#ref(queue, options.group)
    await this.#declare(queue)
    const workers = [...this.#workers]
    return readStatus(
      this.driver,
      ref,
      this.deadLetters(queue, { group: ref.group }),
      {
        runners: workers.flatMap((worker) => worker.snapshot(queue, ref.group) ?? []),
        jobs: workers.flatMap((worker) => worker.jobs).filter((job) => job.queue === queue),
        outbox: this.#outboxStore,
        declare: this.#options.declare,
      },
      this.#options.clock,
      options.signal,
    )
  }

  /** Subscribes to events ('*' = all); returns what unsubscribes. */
  on<T extends EventType>(type: T, listener: Listener<T>): () => void
  on(type: '*', listener: (event: IdemqEvent) => void): () => void
  on(type: EventType | '*', listener: (event: never) => void): () => void {
    return this.#events.on(type as '*', listener as (event: IdemqEvent) => void)
  }

  /** Stops relays and workers (draining), waits for sends under way, and closes the connection and natural stores. */
  close(): Promise<void> {
    this.#closing ??= this.#close()
    return this.#closing
  }

  async #close(): Promise<void> {
    // Handlers that drain may still enqueue: the client is closed to them only once they are done.
    const stopping = [...this.#relays, ...this.#workers].map((each) => each.stop())
    const stopped = await Promise.allSettled(stopping)
    this.#closed = true
    await Promise.allSettled(this.#sending)
    const closed = await Promise.allSettled([this.driver.close(), this.inbox?.close(), this.#outboxStore?.close()])
    throwFirst([...stopped, ...closed])
  }

  /** What each was refused with, undefined where it is stored. */
  async #send(
    queue: string,
    jobs: readonly Composed[],
    signal: AbortSignal | undefined,
  ): Promise<readonly (IdemqError | undefined)[]> {
    const refusal = this.#refusal(jobs[0]!.envelope.name, signal)
    if (refusal) return jobs.map(() => refusal)
    const { clock, sendTimeoutMs } = this.#options
    const { maxDelayMs = Number.POSITIVE_INFINITY } = this.driver.capabilities
    const messages = jobs.map(({ envelope, body, delayMs }) =>
      outgoingOf(envelope, body, Math.min(delayMs, maxDelayMs)),
    )
    reach('enqueue.before_send', () => messages.map(({ jobId }) => jobId))
    const sending = this.#sender.sendMany({ name: queue }, messages, clock.monotonicMs() + sendTimeoutMs, signal)
    this.#sending.add(sending)
    const errors = await sending
    this.#sending.delete(sending)
    const stored = jobs.filter((_, i) => !errors[i])
    if (stored.length === 0) return errors
    reach('enqueue.after_send', () => stored.map(({ envelope }) => envelope.job_id))
    if (this.#events.wants('enqueued')) {
      for (const { envelope, delayMs } of stored) {
        this.#events.emit('enqueued', { ...jobRef(envelope, queue, 'default'), delayMs })
      }
    }
    return errors
  }

  /** Why nothing may be sent now. */
  #refusal(name: string, signal: AbortSignal | undefined): IdemqError | undefined {
    if (this.#closed) return this.#closedError()
    if (transactionContext.getStore()) {
      return new IdemqError(
        'UNSUPPORTED',
        `${name}: enqueue inside handleInTransaction would send it even if that rolls back: ` +
          'use mq.outbox().enqueue(tx, …)',
      )
    }
    return signal?.aborted ? new IdemqError('ABORTED', `${name}: aborted before it was sent`) : undefined
  }

  /** Declares a queue once; a failure is tried again by the next call. */
  #declare(name: string): Promise<void> {
    this.#assertOpen()
    const known = this.#declared.get(name)
    if (known) return known
    const { clock, sendTimeoutMs, declare } = this.#options
    const declaring = persist(
      () => timed(clock, sendTimeoutMs, undefined, (signal) => this.driver.declare({ name }, declare, signal)),
      {
        clock,
        deadlineMs: clock.monotonicMs() + sendTimeoutMs,
        operation: `declare queue '${name}' on ${this.driver.name}`,
      },
    )
    this.#declared.set(name, declaring)
    declaring.catch(() => this.#declared.delete(name))
    return declaring
  }

  #ref(queue: string, group = 'default'): QueueRef {
    checkQueueName(queue, 'queue')
    if (group !== 'default' && !this.driver.capabilities.groups) {
      throw new IdemqError('UNSUPPORTED', `${this.driver.name} has no groups ('${group}')`)
    }
    return { name: queue, group }
  }

  #outbox(given: OutboxStore | undefined): OutboxStore {
    const store = given ?? this.#outboxStore
    if (!store) {
      throw new IdemqError('UNSUPPORTED', `${this.driver.name} has no outbox of its own: pass one of your SQL database`)
    }
    return store
  }

  /** 'work': workers and relays, refused from the first moment of closing. */
  #assertOpen(what: 'work' | 'calls' = 'calls'): void {
    if (this.#closed || (what === 'work' && this.#closing)) throw this.#closedError()
  }

  #closedError(): IdemqError {
    return new IdemqError('CLOSED', `the connection to ${this.driver.name} is closed`)
  }
}

function enqueuedOf({ envelope }: Composed): Enqueued {
  return { jobId: envelope.job_id, idempotencyKey: envelope.idempotency_key }
}
