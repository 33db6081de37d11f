import type { Clock } from './clock.ts'
import type { Capabilities, Driver } from './driver.ts'
import { asIdemqError, IdemqError } from './errors.ts'
import type { Events } from './events.ts'
import { isNoInbox } from './inbox.ts'
import { Claims } from './internal/claims.ts'
import type { Registration } from './internal/entry.ts'
import type { JobContext } from './internal/job-run.ts'
import { persist, startTimeoutMs, throwFirst } from './internal/persist.ts'
import type { Quarantine } from './internal/quarantine.ts'
import { QueueRunner } from './internal/queue-runner.ts'
import type { Sender } from './internal/sender.ts'
import { type AnyJob, byJobId, checkQueueName, type Job } from './job.ts'
import type { InboxStore } from './store.ts'

export interface WorkerOptions<Tx = unknown> {
  /** Where duplicates are recognised and starts are counted. @default the adapter's own; elsewhere required */
  readonly inbox?: InboxStore<Tx>
  /** Handlers at once per queue, from 1. @default 10 */
  readonly concurrency?: number
  /** Deliveries in hand per queue, running ones included; at least `concurrency`. @default 2 × concurrency */
  readonly prefetch?: number
  /** Which group of consumers this is, where the broker has groups. @default 'default' */
  readonly group?: string
  /** The broker's lease per delivery in milliseconds, renewed every third of it. @default 30_000 */
  readonly leaseMs?: number
  /** The inbox's lease per claim in milliseconds, renewed likewise: what a crash costs. @default 15_000 */
  readonly claimLeaseMs?: number
  /** What a handler gets to end in after its signal aborted, in milliseconds. @default 5_000 */
  readonly graceMs?: number
  /** How long the inbox remembers a key, in milliseconds. @default 14 days */
  readonly retentionMs?: number
}

export type Handler<Out, Result = unknown> = (payload: Out, job: JobContext) => Promise<Result> | Result
export type TransactionalHandler<Out, Tx, Result = unknown> = (
  payload: Out,
  job: JobContext,
  tx: Tx,
) => Promise<Result> | Result

export interface StopOptions {
  /** How long running handlers may take to end by themselves, in milliseconds, from 0. @default 30_000 */
  readonly drainMs?: number
}

/** What a worker needs of the client that made it. */
export interface WorkerHost {
  readonly driver: Driver
  readonly naturalInbox: InboxStore | undefined
  readonly declare: 'create' | 'check'
  readonly sender: Sender
  readonly events: Events
  readonly clock: Clock
  readonly quarantine: Quarantine
  readonly random: () => number
}

const defaults = {
  concurrency: 10,
  group: 'default',
  leaseMs: 30_000,
  claimLeaseMs: 15_000,
  graceMs: 5_000,
  retentionMs: 14 * 24 * 3_600_000,
}
const defaultDrainMs = 30_000
const purgeEveryMs = 60_000
const purgeBatch = 1_000
/** Dead letters should stay replayable this long before the inbox forgets what was done. */
const replayWindowMs = 7 * 24 * 3_600_000

/**
 * Works the queues of the jobs it has handlers for. Delivery is at least once; an effect happens once where the handler
 * commits it in the inbox's transaction, or gives the provider the key it is handed.
 */
export class Worker<Tx = unknown> {
  readonly #host: WorkerHost
  readonly #options: Required<Omit<WorkerOptions<Tx>, 'inbox'>>
  readonly #inbox: InboxStore | undefined
  readonly #registrations = new Map<string, Registration>()
  #runners: QueueRunner[] = []
  #state: 'new' | 'running' | 'stopped' = 'new'
  readonly #stopOpening = new AbortController()
  #opening: Promise<void> | undefined
  #stopping: Promise<void> | undefined
  #cancelPurge: (() => void) | undefined

  /** @throws IdemqError INVALID_OPTION */
  constructor(host: WorkerHost, options: WorkerOptions<Tx> = {}) {
    this.#host = host
    const concurrency = options.concurrency ?? defaults.concurrency
    this.#options = { ...defaults, prefetch: concurrency * 2, ...withoutUndefined(options) }
    this.#inbox = (options.inbox as InboxStore | undefined) ?? host.naturalInbox
    const { prefetch, leaseMs, claimLeaseMs, graceMs, retentionMs, group } = this.#options
    const refuse = (what: string): never => {
      throw new IdemqError('INVALID_OPTION', `mq.worker: ${what}`)
    }
    if (!(Number.isInteger(concurrency) && concurrency >= 1)) refuse(`concurrency is ${concurrency}, must be from 1`)
    if (!(Number.isInteger(prefetch) && prefetch >= concurrency)) {
      refuse(`prefetch is ${prefetch}, must be at least concurrency (${concurrency})`)
    }
    const durations = { leaseMs, claimLeaseMs, graceMs, retentionMs }
    for (const [name, value] of Object.entries(durations)) {
      if (!(value >= 1 && value < Number.POSITIVE_INFINITY)) refuse(`${name} is ${value}, must be 1 ms or more`)
    }
    checkQueueName(group, 'mq.worker: group')
  }

  /**
   * Registers the handler of a job. Before `start`.
   * @throws IdemqError DUPLICATE_HANDLER, CLOSED once started
   */
  handle<In, Out>(job: Job<In, Out>, handler: Handler<Out>): this {
    return this.#register(job, handler as Registration['handler'], false)
  }

  /**
   * Registers a handler that runs in the inbox's database transaction: its effect, the inbox row and outbox rows are
   * one commit, so the effect happens once. Write only through `tx`; keep it short: it holds locks while it is open.
   * @throws IdemqError DUPLICATE_HANDLER, CLOSED once started
   */
  handleInTransaction<In, Out>(job: Job<In, Out>, handler: TransactionalHandler<Out, Tx>): this {
    return this.#register(job, handler as Registration['handler'], true)
  }

  /**
   * Checks everything, then declares the queues and begins to consume.
   * @throws IdemqError INBOX_REQUIRED, UNSUPPORTED, INVALID_OPTION before anything is consumed; QUEUE_MISSING,
   * QUEUE_MISMATCH, UNAUTHORIZED from the broker or store; BROKER_UNAVAILABLE, BROKER_BUSY after trying for 10 s
   */
  async start(): Promise<void> {
    if (this.#state !== 'new') throw new IdemqError('CLOSED', 'a worker starts once: make a new one with mq.worker()')
    const inbox = this.#check()
    this.#state = 'running'
    this.#warn(inbox)
    const { signal } = this.#stopOpening
    this.#opening = this.#open(inbox, signal)
    try {
      await this.#opening
      if (signal.aborted) throw signal.reason
    } catch (error) {
      const stopped = signal.aborted
      await this.stop({ drainMs: 0 })
      throw stopped ? signal.reason : error
    }
    this.#opening = undefined
    for (const runner of this.#runners) runner.start()
    this.#schedulePurge(inbox)
  }

  /** Prepares the store, declares the queues and opens a runner for each; none of them fetches yet. */
  async #open(inbox: InboxStore, signal: AbortSignal): Promise<void> {
    const { driver, declare, clock, events, sender, quarantine, random } = this.#host
    const { claimLeaseMs, retentionMs, group, concurrency, prefetch, leaseMs, graceMs } = this.#options
    const deadlineMs = clock.monotonicMs() + startTimeoutMs
    const patiently = <T>(operation: string, run: () => Promise<T>): Promise<T> => {
      const onTrouble = (error: IdemqError): void => events.emit('trouble', { queue: '', operation, error })
      return persist(run, { clock, signal, deadlineMs, operation, onTrouble })
    }
    await patiently(`prepare the inbox ${inbox.name}`, () => inbox.prepare(declare, signal))
    for (const [name, registrations] of this.#byQueue()) {
      if (signal.aborted) return
      const queue = { name, group }
      await patiently(`declare queue '${name}' on ${driver.name}`, () => driver.declare(queue, declare, signal))
      const onTrouble = (operation: string, error: IdemqError): void =>
        events.emit('trouble', { queue: name, operation, error })
      const claims = new Claims({ inbox, clock, leaseMs: claimLeaseMs, retentionMs, onTrouble })
      const unclaimed = isNoInbox(inbox)
      const limits = { concurrency, prefetch, leaseMs, graceMs }
      const parts = { driver, queue, registrations, claims, unclaimed, sender, events, clock, quarantine, random }
      this.#runners.push(
        await patiently(`open queue '${name}' on ${driver.name}`, () =>
          QueueRunner.open({ ...parts, ...limits }, signal),
        ),
      )
    }
  }

  /**
   * Takes nothing new, hands back what has not started, waits for what runs; then aborts it and hands it back without
   * using an attempt. A handler deaf to its signal keeps its claim until that lapses. Calls after the first wait for it.
   */
  stop(options: StopOptions = {}): Promise<void> {
    const { drainMs = defaultDrainMs } = options
    if (!(drainMs >= 0)) throw new IdemqError('INVALID_OPTION', `worker.stop: drainMs is ${drainMs}, must be from 0`)
    this.#stopping ??= this.#stop(drainMs)
    return this.#stopping
  }

  async #stop(drainMs: number): Promise<void> {
    this.#state = 'stopped'
    this.#cancelPurge?.()
    if (this.#opening) {
      // What a start under way still opens must be closed as well.
      this.#stopOpening.abort(new IdemqError('CLOSED', 'the worker was stopped before it had started'))
      await this.#opening.catch(() => {})
    }
    const stopped = await Promise.allSettled(this.#runners.map((runner) => runner.stop(drainMs)))
    throwFirst(stopped)
  }

  /** Push brokers: the handler of each queue's requests, to mount in any server. */
  get fetchers(): ReadonlyMap<string, (request: Request) => Promise<Response>> {
    const mounted = this.#runners.filter((runner) => runner.receiver.fetch)
    return new Map(mounted.map((runner) => [runner.queueName, (request) => runner.receiver.fetch!(request)]))
  }

  /** For `mq.status`. */
  snapshot(queue: string, group: string): QueueRunner['snapshot'] | undefined {
    return group === this.#options.group ? this.#runners.find((r) => r.queueName === queue)?.snapshot : undefined
  }

  /** The jobs it has handlers for. */
  get jobs(): readonly AnyJob[] {
    return [...this.#registrations.values()].map(({ job }) => job)
  }

  #register(job: AnyJob, handler: Registration['handler'], transactional: boolean): this {
    if (this.#state !== 'new') throw new IdemqError('CLOSED', `handle('${job.name}'): the worker has started`)
    if (this.#registrations.has(job.name)) {
      throw new IdemqError('DUPLICATE_HANDLER', `handle('${job.name}'): this worker has a handler for it already`)
    }
    this.#registrations.set(job.name, { job, handler, transactional })
    return this
  }

  #byQueue(): Map<string, Map<string, Registration>> {
    const queues = new Map<string, Map<string, Registration>>()
    for (const registration of this.#registrations.values()) {
      const { queue, name } = registration.job
      queues.set(queue, (queues.get(queue) ?? new Map()).set(name, registration))
    }
    return queues
  }

  /** Everything that can be refused without asking anyone. */
  #check(): InboxStore {
    const { driver } = this.#host
    const { capabilities } = driver
    const refuse = (what: string): never => {
      throw new IdemqError('UNSUPPORTED', `worker on ${driver.name}: ${what}`)
    }
    const inbox = this.#inbox
    if (this.#registrations.size === 0) {
      throw new IdemqError('INVALID_OPTION', 'worker: no handler is registered: call worker.handle(job, handler) first')
    }
    if (!inbox) {
      throw new IdemqError(
        'INBOX_REQUIRED',
        `worker on ${driver.name}: this broker has no inbox of its own: pass one (mq.worker({ inbox })), or noInbox() to do without`,
      )
    }
    const unclaimed = isNoInbox(inbox)
    if (unclaimed && capabilities.counts === 'none')
      refuse('it counts no deliveries, so attempts are unbounded with noInbox()')
    if (this.#options.group !== defaults.group && !capabilities.groups)
      refuse(`it has no groups ('${this.#options.group}')`)
    for (const { job, transactional } of this.#registrations.values()) {
      if (unclaimed && job.idempotencyKey !== byJobId) {
        refuse(`${job.name} has a business key, which noInbox() cannot honour: pass an inbox, or say byJobId`)
      }
      if (transactional && !(inbox.capabilities.transactions && inbox.transact)) {
        refuse(`${job.name} is handled in a transaction, which the inbox '${inbox.name}' does not have`)
      }
      this.#checkHold(job, capabilities, refuse)
    }
    return inbox
  }

  #checkHold(job: AnyJob, capabilities: Capabilities, refuse: (what: string) => never): void {
    const { graceMs, leaseMs } = this.#options
    const needMs = job.timeoutMs + graceMs
    if (capabilities.maxHoldMs !== undefined && needMs > capabilities.maxHoldMs) {
      refuse(`${job.name} may take ${needMs} ms (timeoutMs + graceMs), it holds at most ${capabilities.maxHoldMs} ms`)
    }
    if (capabilities.returnsBy === 'lease' && !capabilities.canExtend && needMs > leaseMs) {
      refuse(
        `${job.name} may take ${needMs} ms (timeoutMs + graceMs) and its lease of ${leaseMs} ms cannot be extended`,
      )
    }
  }

  /** What start-up can foresee and nobody has to refuse. */
  #warn(inbox: InboxStore): void {
    const { driver, events } = this.#host
    const { durability, retentionMs: brokerMs } = driver.capabilities
    const longestBackoffMs = Math.max(...this.jobs.map((job) => job.backoff.maxMs))
    if (durability !== 'sync') {
      const what = durability === 'memory' ? 'the process ends' : 'the server loses power'
      events.emit('warning', { message: `${driver.name}: confirmed jobs are lost when ${what}` })
    }
    if (brokerMs !== undefined && longestBackoffMs >= brokerMs) {
      const message = `${driver.name}: a backoff of ${longestBackoffMs} ms outlives the broker's retention of ${brokerMs} ms`
      events.emit('warning', { message })
    }
    const needMs = (brokerMs ?? 0) + longestBackoffMs + replayWindowMs
    if (!isNoInbox(inbox) && this.#options.retentionMs < needMs) {
      const message = `the inbox forgets after ${this.#options.retentionMs} ms; broker retention, backoff and a week of replay need ${needMs} ms`
      events.emit('warning', { message })
    }
  }

  #schedulePurge(inbox: InboxStore): void {
    this.#cancelPurge = this.#host.clock.schedule(() => void this.#purge(inbox), purgeEveryMs, true)
  }

  /** Until nothing is left past its retention: in bites, so that nobody waits long for a lock. */
  async #purge(inbox: InboxStore): Promise<void> {
    try {
      while (this.#state === 'running') {
        const purged = await inbox.purge(purgeBatch, AbortSignal.timeout(purgeEveryMs))
        if (purged < purgeBatch) break
      }
    } catch (thrown) {
      const error = asIdemqError(thrown, 'BROKER_UNAVAILABLE', `purge the inbox ${inbox.name}`)
      this.#host.events.emit('trouble', { queue: '', operation: 'purge the inbox', error })
    }
    if (this.#state === 'running') this.#schedulePurge(inbox)
  }
}

function withoutUndefined<T extends object>(options: T): { [K in keyof T]: Exclude<T[K], undefined> } {
  const given = Object.entries(options).filter(([, value]) => value !== undefined)
  return Object.fromEntries(given) as { [K in keyof T]: Exclude<T[K], undefined> }
}
