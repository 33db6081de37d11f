/** The one stream of what happens. Telemetry, consoles and tests subscribe; nothing in core depends on a subscriber. */
import type { DeadReason, Envelope } from './envelope.ts'
import type { IdemqError } from './errors.ts'
import type { CircuitState } from './policy/circuit.ts'

/** Which job an event is about. Payloads never appear in events. */
export interface JobRef {
  readonly jobId: string
  readonly job: string
  readonly idempotencyKey: string
  readonly attempt: number
  readonly replay: number
  readonly queue: string
  readonly group: string
}

export type DeferReason = 'busy' | 'circuit_open' | 'unknown_job' | 'not_due' | 'drain' | 'claim_lost'

export interface EventMap {
  enqueued: JobRef & { readonly delayMs: number }
  /** A handler starts. */
  started: JobRef
  succeeded: JobRef & { readonly durationMs: number }
  /** Settled without running: done before ('completed'), or a copy that has a successor ('stale'). */
  deduplicated: JobRef & {
    readonly reason: 'completed' | 'stale'
    /** What the completed run returned, where the job keeps results (`storeResult`). */
    readonly result?: unknown
  }
  failed: JobRef & { readonly error: Error; readonly permanent: boolean; readonly durationMs: number }
  retry_scheduled: JobRef & { readonly delayMs: number; readonly overBudget: boolean }
  /** Comes back later, no attempt used. */
  deferred: JobRef & { readonly delayMs: number; readonly reason: DeferReason }
  snoozed: JobRef & { readonly delayMs: number }
  /** `job` is absent where the bytes could not be read. */
  dead_lettered: { readonly queue: string; readonly group: string; readonly reason: DeadReason; readonly job?: JobRef }
  replayed: JobRef
  /** Another worker owns the job: the handler's signal is aborted and its end is not recorded. */
  claim_lost: JobRef
  circuit_opened: CircuitEvent
  circuit_half_opened: CircuitEvent
  circuit_closed: CircuitEvent
  paused: { readonly queue: string; readonly group: string; readonly resumeInMs: number }
  resumed: { readonly queue: string; readonly group: string }
  /** Something to know before it hurts: retention shorter than backoff, weak durability … */
  warning: { readonly queue?: string; readonly message: string }
  /** I/O with the broker or a store failed and is being retried. */
  trouble: { readonly queue: string; readonly operation: string; readonly error: IdemqError }
}

interface CircuitEvent {
  readonly queue: string
  readonly circuit: string
  readonly state: CircuitState
}

export type EventType = keyof EventMap
export type IdemqEvent = { [T in EventType]: { readonly type: T; readonly atMs: number } & EventMap[T] }[EventType]

export type Listener<T extends EventType> = (event: { readonly type: T; readonly atMs: number } & EventMap[T]) => void

/** Typed, synchronous, in order. A listener that throws is reported as an uncaught exception, never to the worker. */
export class Events {
  readonly #listeners = new Map<EventType | '*', Set<(event: never) => void>>()
  readonly #now: () => number
  constructor(now: () => number) {
    this.#now = now
  }
  /** Returns what unsubscribes. '*' gets every event. */
  on<T extends EventType>(type: T, listener: Listener<T>): () => void
  on(type: '*', listener: (event: IdemqEvent) => void): () => void
  on(type: EventType | '*', listener: (event: never) => void): () => void {
    const listeners = this.#listeners.get(type) ?? new Set()
    this.#listeners.set(type, listeners.add(listener))
    return () => {
      listeners.delete(listener)
      if (listeners.size === 0) this.#listeners.delete(type)
    }
  }
  /** True if somebody would see the event: saves building it. */
  wants(type: EventType): boolean {
    return this.#listeners.size > 0 && (this.#listeners.has(type) || this.#listeners.has('*'))
  }
  emit<T extends EventType>(type: T, detail: EventMap[T]): void {
    if (!this.wants(type)) return
    const event = { ...detail, type, atMs: this.#now() } as never
    for (const key of [type, '*'] as const) {
      for (const listener of this.#listeners.get(key) ?? []) {
        try {
          listener(event)
        } catch (error) {
          queueMicrotask(() => {
            throw error
          })
        }
      }
    }
  }
}

/** What an event says about the job in an envelope. */
export function jobRef(envelope: Envelope, queue: string, group: string, attempt: number = envelope.attempt): JobRef {
  return {
    jobId: envelope.job_id,
    job: envelope.name,
    idempotencyKey: envelope.idempotency_key,
    attempt,
    replay: envelope.replay,
    queue,
    group,
  }
}
