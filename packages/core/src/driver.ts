/**
 * The driver contract: what an adapter author implements for one broker. A driver does I/O and classifies errors; it
 * has no retry loop, timer, log or policy: those are core's. `conformance/` judges a driver from outside through it.
 *
 * The order law every part of idemq keeps: a copy is confirmed stored → the inbox releases its claim → the original is
 * settled. So a driver needs no "requeue": core sends the successor, ends the claim, then acks the original, and a
 * crash between any two leaves a duplicate that the inbox collapses, never a hole.
 */
import type { Envelope } from './envelope.ts'
import type { IdemqError } from './errors.ts'

/** A queue as one group of consumers sees it. `group` is 'default' unless `capabilities.groups`. */
export interface QueueRef {
  readonly name: string
  readonly group: string
}

/**
 * Where a message goes. Without `group`: to the queue, hence to every group of it. With `group`: to that group alone
 * (its retries, deferrals and replays). A driver without groups ignores `group`.
 */
export interface Target {
  readonly name: string
  readonly group?: string
}

export interface Outgoing {
  /**
   * Unique per (job, replay, attempt, hop). A second send of a copyId that is still stored counts as stored, and changes
   * nothing where `capabilities.dedupesSends`. A broker's own dedupe, if it has one, must use this and never the job id, or a retry is swallowed.
   */
  readonly copyId: string
  readonly jobId: string
  /** Bytes to be delivered unchanged. */
  readonly body: Uint8Array
  /** Ordering key, else idempotency key: where a broker partitions, equal keys meet in one place. */
  readonly partitionKey: string
  /** True if the sender asked for order within `partitionKey`. Only sent where `capabilities.ordering` is not 'none'. */
  readonly ordered: boolean
  /** Milliseconds before it may be delivered, at most `maxDelayMs`. Never early. */
  readonly delayMs: number
}

/** One delivery of one copy, held by this receiver until it is settled or `holdUntilMs` passes. */
export interface Delivery {
  readonly body: Uint8Array
  /** Earlier deliveries of this copy, where the broker counts (`capabilities.counts`). */
  readonly priorDeliveries?: number
  /** Instant of the driver's monotonic clock after which loss must be assumed. Updated by `extend`. */
  readonly holdUntilMs: number
}

/**
 * `ack`: done, remove it. `release`: the same copy back now, to anyone, no count raised; where not `freeRelease` it is
 * answered 'failed' with UNSUPPORTED.
 */
export type Outcome = 'ack' | 'release'

export interface Settlement {
  readonly delivery: Delivery
  readonly outcome: Outcome
}

/**
 * `settled`: it took effect, or (extend) is held.
 * `lost`: another owner, or nobody; it did not take effect and never will.
 * `unknown`: it may have happened.
 * `failed`: it did not happen and the delivery is still held.
 */
export type Settled = { readonly status: 'settled' | 'lost' | 'unknown' } | Failed
/** `stored`: as durable as `capabilities.durability` says. `unknown`: may be stored. `failed`: is not. */
export type Sent = { readonly status: 'stored' | 'unknown' } | Failed
interface Failed {
  readonly status: 'failed'
  readonly error: IdemqError
}

/** What a broker can tell about a queue. A field that is absent cannot be told. Ages and times in milliseconds. */
export interface QueueStats {
  readonly ready?: number
  readonly delayed?: number
  readonly inFlight?: number
  readonly dead?: number
  readonly oldestReadyAgeMs?: number
  readonly oldestInFlightAgeMs?: number
  /** Until the next delayed copy is due. Absent where none waits. */
  readonly nextDueInMs?: number
}

export interface DeadLetterRecord {
  /** The broker's handle, stable while the letter stays. */
  readonly id: string
  readonly body: Uint8Array
}

export type Visit = 'keep' | 'remove' | 'stop'

/** The manifest: the single truth about a driver. It gates start-up, the suite and the table in the README. */
export interface Capabilities {
  /** What survives once a send is confirmed: nothing, a process crash (`async`), or a power loss (`sync`). */
  readonly durability: 'memory' | 'async' | 'sync'
  /** How long a message waits before the broker drops it. Absent = until it is settled. */
  readonly retentionMs?: number
  readonly deadRetentionMs?: number
  /** Largest body in bytes. Core keeps 16 KiB of it free for failures. */
  readonly maxBodyBytes: number
  /** Most messages in one send or receive, most deliveries in one settle or extend. Core never passes more. */
  readonly maxBatch: number
  /** Longest native delay; core hops beyond it. Absent = unlimited. */
  readonly maxDelayMs?: number
  /** How late a delayed copy may be on an idle queue. */
  readonly delayGranularityMs: number
  /** What gives a dead worker's deliveries back: time, its connection, a group rebalance, the end of a request. */
  readonly returnsBy: 'lease' | 'connection' | 'rebalance' | 'request'
  readonly canExtend: boolean
  /** Longest total hold with extensions. Absent = unlimited. */
  readonly maxHoldMs?: number
  /** Whether `priorDeliveries` is reported, and what raises it. */
  readonly counts: 'none' | 'starts' | 'every-delivery'
  readonly freeRelease: boolean
  /** A second send of a copyId that is still stored changes nothing. Else it makes a duplicate, for the inbox to collapse. */
  readonly dedupesSends: boolean
  /** The broker itself refuses a settle by someone who lost the delivery. Otherwise the local deadline decides. */
  readonly fencedSettle: boolean
  /** 'first-attempts': messages of one ordering key are delivered one at a time, in order; a retry goes behind. */
  readonly ordering: 'none' | 'first-attempts' | 'strict'
  /** Several groups of consumers each get every message. */
  readonly groups: boolean
  /** How dead letters are looked at: any of them, only all of them, or by holding them for a while. */
  readonly deadScan: 'random' | 'full' | 'leased'
  /** Deliveries arrive as HTTP requests: `Receiver.fetch` must be mounted. */
  readonly push: boolean
  readonly stats: readonly (keyof QueueStats)[]
}

/** A foreign wire format. Absent = the JSON envelope v1. Unknown fields must survive a round trip. */
export interface Codec {
  encode(envelope: Envelope): Uint8Array
  /** @throws IdemqError INVALID_ENVELOPE or UNSUPPORTED_VERSION */
  decode(body: Uint8Array): Envelope
}

export interface OpenOptions {
  /** Deliveries unsettled plus buffered never exceed this. */
  readonly maxUnsettled: number
  /** Lease per delivery in milliseconds, where `returnsBy` is 'lease'. */
  readonly leaseMs: number
  /** Called when the driver learns by itself that deliveries are gone (rebalance, connection loss). */
  readonly onLost: (deliveries: readonly Delivery[]) => void
}

/**
 * One broker. All calls may run at once. A call that rejects says "the broker or the queue as a whole"; a fate of one
 * message is a value in its batch. Rejections are IdemqErrors; `retryable` ones are repeated by core with backoff.
 */
export interface Driver {
  readonly name: string
  readonly capabilities: Capabilities
  readonly codec?: Codec
  /**
   * Idempotent. 'create' makes what is missing; 'check' never creates. Without `group` it is the queue that must be
   * there, as a producer needs it; with `group` also what that group of consumers needs.
   * @throws IdemqError QUEUE_MISSING, QUEUE_MISMATCH (names the setting), UNAUTHORIZED
   */
  declare(target: Target, mode: 'create' | 'check', signal: AbortSignal): Promise<void>
  /** Answers in the order of `batch`, each confirmed by the broker. */
  send(target: Target, batch: readonly Outgoing[], signal: AbortSignal): Promise<Sent[]>
  /** Stores dead letters of `queue`, confirmed, a copyId once where `dedupesSends`; bodies may be raw bytes of any kind. */
  sendDead(queue: QueueRef, batch: readonly Outgoing[], signal: AbortSignal): Promise<Sent[]>
  open(queue: QueueRef, options: OpenOptions, signal: AbortSignal): Promise<Receiver>
  stats(queue: QueueRef, signal: AbortSignal): Promise<QueueStats>
  /**
   * Shows the dead letters of `queue`, oldest first, each at most once. 'keep' leaves one as it was however often it is
   * looked at; 'remove' deletes it after the visit resolved; 'stop' keeps it and ends. `complete`: the end was reached;
   * an abort ends it after the visit under way, incomplete.
   */
  scanDead(
    queue: QueueRef,
    visit: (letter: DeadLetterRecord) => Promise<Visit>,
    signal: AbortSignal,
  ): Promise<{ readonly complete: boolean }>
  /** Ends every receiver and connection the driver opened itself. Idempotent. */
  close(): Promise<void>
}

export interface Receiver {
  /**
   * Up to `max` deliveries (and within `maxUnsettled`), after promoting what is due and reclaiming what expired.
   * Returns as soon as it has any; empty after about `waitMs`. Aborting it strands nothing: it may resolve with what it
   * already took.
   */
  receive(max: number, waitMs: number, signal: AbortSignal): Promise<Delivery[]>
  /** Answers in the order of `batch`. Settling again, or after loss, is `lost` and harms nobody. */
  settle(batch: readonly Settlement[], signal: AbortSignal): Promise<Settled[]>
  /**
   * Renews the lease of each; `settled` = held, and its `holdUntilMs` is updated. Where not `canExtend` it is answered
   * 'failed' with UNSUPPORTED.
   */
  extend(deliveries: readonly Delivery[], signal: AbortSignal): Promise<Settled[]>
  /** No new deliveries (a `receive` answers []); what only the driver buffered goes back. Settle and extend go on. */
  stop(): Promise<void>
  /** Gives everything unsettled up. Idempotent. */
  close(): Promise<void>
  /** Push brokers: mount this in any server. Answers 503 unless a `receive` waits. */
  readonly fetch?: (request: Request) => Promise<Response>
}
