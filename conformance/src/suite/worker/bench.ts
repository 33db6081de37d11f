/** The workbench of one case that goes through core: clients, workers and jobs on the adapter under test. */
import assert from 'node:assert/strict'
import { randomUUID } from 'node:crypto'
import {
  type Adapter,
  type AnyJob,
  connect,
  copyIdOf,
  type DeadLetter,
  type Driver,
  defineJob,
  type Envelope,
  type EventType,
  encodeEnvelope,
  fixed,
  type IdemqEvent,
  type InboxStore,
  type Job,
  type JobOptions,
  type Mq,
  type Worker,
  type WorkerOptions,
  wireTime,
} from '@idemq/core'
import type { Case } from '../case.ts'
import { DriverBench, message } from '../driver/bench.ts'
import type { DriverHarness } from '../driver/harness.ts'
import { until } from '../wait.ts'

export type WorkerCase = Case<DriverHarness, WorkerBench>

/** What the jobs of the suite carry; `key` is the idempotency key. */
export interface Payload {
  readonly key: string
  readonly value?: unknown
}

type PayloadSchema = JobOptions<Payload, Payload>['payload']

/** A Standard Schema for {@link Payload}, so that the suite needs no schema library. */
const payloadSchema: PayloadSchema = {
  '~standard': {
    version: 1,
    vendor: 'idemq-conformance',
    validate(value) {
      const { key } = (value ?? {}) as { key?: unknown }
      if (typeof key === 'string' && key !== '') return { value: value as Payload }
      return { issues: [{ message: 'must be a text', path: ['key'] }] }
    },
  },
}

/** What may be put between core and the adapter. */
export interface Between {
  readonly driver?: (driver: Driver) => Driver
  readonly inbox?: (inbox: InboxStore) => InboxStore
}

export interface Client {
  readonly mq: Mq
  /** The inbox its workers use. */
  readonly inbox: InboxStore
  readonly events: readonly IdemqEvent[]
  worker(options?: WorkerOptions): Worker
  /** Events of one type so far. */
  seen<T extends EventType>(type: T): Extract<IdemqEvent, { type: T }>[]
}

export class WorkerBench extends DriverBench {
  /** A connection of its own, with what `between` puts in the way. */
  async client(between: Between = {}): Promise<Client> {
    const adapter: Adapter = await this.adapter()
    const natural = adapter.inbox ?? (await this.#givenInbox())
    const inbox = between.inbox ? between.inbox(natural) : natural
    const driver = between.driver ? between.driver(adapter.driver) : adapter.driver
    const mq = await connect({ ...adapter, driver, inbox })
    const events: IdemqEvent[] = []
    mq.on('*', (event) => events.push(event))
    this.onDispose(() => mq.close())
    return {
      mq,
      inbox,
      events,
      worker: (options) => {
        const worker = mq.worker({ graceMs: 500, ...options })
        this.onDispose(() => worker.stop({ drainMs: 0 }))
        return worker
      },
      seen: <T extends EventType>(type: T) =>
        events.filter((event): event is Extract<IdemqEvent, { type: T }> => event.type === type),
    }
  }

  async #givenInbox(): Promise<InboxStore> {
    assert.ok(this.harness.createInbox, 'this adapter has no inbox of its own: give one in harness.createInbox')
    const inbox = await this.harness.createInbox()
    this.onDispose(() => inbox.close())
    return inbox
  }

  /** A job on a queue of its own: three attempts, hardly any backoff. */
  job(change: Partial<JobOptions<Payload, Payload>> = {}, name = 'work'): Job<Payload, Payload> {
    return defineJob(name, {
      queue: this.queue().name,
      payload: payloadSchema,
      idempotencyKey: (payload) => payload.key,
      timeoutMs: 10_000,
      retry: { maxAttempts: 3, backoff: fixed(5) },
      ...change,
    })
  }

  until<T>(what: string, probe: () => Promise<T> | T, done: (value: T) => boolean): Promise<T> {
    return until(what, this.scale.eventuallyMs, probe, done)
  }

  /** Waits until there are `count` dead letters, and returns them. */
  async dead(mq: Mq, job: AnyJob, count: number, group?: string): Promise<DeadLetter[]> {
    return this.until(
      `${count} dead letters`,
      async () => {
        const letters: DeadLetter[] = []
        for await (const letter of mq.deadLetters(job.queue, group ? { group } : {}).scan()) letters.push(letter)
        return letters
      },
      (letters) => letters.length === count,
    )
  }

  /** Puts an envelope on the queue of `job` past `enqueue`, as another producer would. */
  async sendEnvelope(driver: Driver, job: AnyJob, change: Record<string, unknown>): Promise<Envelope> {
    const now = wireTime(Date.now())
    const envelope = {
      v: 1,
      job_id: randomUUID(),
      name: job.name,
      idempotency_key: `key-${randomUUID()}`,
      attempt: 1,
      replay: 0,
      payload: {},
      created_at: now,
      first_enqueued_at: now,
      ...change,
    } as Envelope
    const body = driver.codec ? driver.codec.encode(envelope) : encodeEnvelope(envelope)
    const queue = await this.declared(driver, { name: job.queue, group: 'default' })
    await this.send(driver, { name: queue.name }, [
      { ...message(), copyId: copyIdOf(envelope), jobId: envelope.job_id, body },
    ])
    return envelope
  }
}

export function payload(value?: unknown): Payload {
  const key = `key-${randomUUID()}`
  return value === undefined ? { key } : { key, value }
}

/** A gate that a case opens for its handlers. */
export interface Latch {
  readonly opened: Promise<void>
  open(): void
}

export function latch(): Latch {
  const { promise, resolve } = Promise.withResolvers<void>()
  return { opened: promise, open: resolve }
}

/** A driver whose manifest says something else: what core must then do, or refuse, holds on any broker. */
export function withManifest(change: Partial<Driver['capabilities']>): (driver: Driver) => Driver {
  return (driver) => withChanges(driver, { capabilities: { ...driver.capabilities, ...change } })
}

/** `target` with some members replaced; all else is its own. */
export function withChanges<T extends object>(target: T, changes: Partial<T>): T {
  return new Proxy(target, {
    get(object, name) {
      if (Object.hasOwn(changes, name)) return changes[name as keyof T]
      const value = Reflect.get(object, name) as unknown
      return typeof value === 'function' ? value.bind(object) : value
    },
  })
}
