/**
 * The store contracts: the inbox (dedupe, start counts, step memo) and the outbox, each I/O with one database.
 * All calls are batched, one round trip each. Only the database's clock and its fencing tokens decide, never ours.
 *
 * An inbox row: absent → claimed → completed | failed | released, keyed by (scope, key); `floor` is the lowest attempt
 * of the current replay that has no durable successor; it rises by `end`, and by a claim to the claiming copy's own
 * attempt (that copy is the durable successor of those before it).
 */

/** Opaque fencing token. Comes from a sequence of the store and never repeats. */
export type Token = string | number

export interface ClaimRequest {
  /** `group/jobName`. */
  readonly scope: string
  /** The idempotency key. */
  readonly key: string
  /** Hash of the wire payload. */
  readonly fingerprint: string
  readonly jobId: string
  readonly replay: number
  /** Attempt of the copy in hand, from 1. */
  readonly attempt: number
}

/**
 * `claimed`: ours until the lease ends; `attempt` counts starts of the key's series, this one included; `crashed`: the
 * start before this one never ended, its lease ran out; `steps` are the results recorded so far (JSON by step name).
 * `completed`: done before, with the stored result (JSON) if one was kept.
 * `busy`: claimed by another; ask again after `retryAfterMs`.
 * `mismatch`: claimed, released or completed with another fingerprint.
 * `stale`: this copy has a durable successor, or its job failed for good: drop it.
 */
export type ClaimAnswer =
  | {
      readonly status: 'claimed'
      readonly token: Token
      readonly attempt: number
      readonly crashed: boolean
      readonly steps?: Readonly<Record<string, string>>
    }
  | { readonly status: 'completed'; readonly result?: string }
  | { readonly status: 'busy'; readonly retryAfterMs: number }
  | { readonly status: 'mismatch' | 'stale' }

export interface ClaimRef {
  readonly scope: string
  readonly key: string
  readonly token: Token
}

export interface ClaimEnd extends ClaimRef {
  readonly state: 'completed' | 'failed' | 'released'
  /** `floor` becomes the greater of this and what it is. */
  readonly floor: number
  /** Gives the start back: drain, snooze, quarantine. */
  readonly free: boolean
  /**
   * 'released' only: for so many milliseconds other jobs with this key are answered `busy`, so that a duplicate does not
   * run ahead of a retry's backoff. The job itself may claim at once.
   */
  readonly holdMs: number
  /** JSON, for 'completed' only. */
  readonly result?: string
}

export interface StepRecord extends ClaimRef {
  readonly step: string
  /** JSON. */
  readonly result: string
}

export type Held = 'held' | 'lost'

export interface ClaimTimes {
  readonly leaseMs: number
  /** How long a row outlives its last change. */
  readonly retentionMs: number
}

/** What a store can do: gates `handleInTransaction` and the store suite. */
export interface StoreCapabilities {
  readonly durability: 'memory' | 'async' | 'sync'
  /** `transact` is there. */
  readonly transactions: boolean
  /** Rows past their retention go by themselves: `purge` finds nothing. */
  readonly expiresItself: boolean
}

export interface InboxStore<Tx = unknown> {
  readonly name: string
  readonly capabilities: StoreCapabilities
  /** Creates or migrates what is missing ('create'), or only looks ('check': QUEUE_MISSING says what to run). */
  prepare(mode: 'create' | 'check', signal: AbortSignal): Promise<void>
  /**
   * Answers in order. Keys are distinct within a batch. Who claims:
   * - nobody holds an unexpired claim, no other job is inside its `holdMs`, and the row is absent, expired, or
   * - claimed or released with the same fingerprint, by another job, or by this job at or above (replay, floor), or
   * - failed, by another job or a higher replay of this one.
   * The count continues at `max(attempt, used + 1)`, and starts anew at `attempt` after 'failed', after the row expired,
   * or for a higher replay.
   */
  claim(batch: readonly ClaimRequest[], times: ClaimTimes, signal: AbortSignal): Promise<ClaimAnswer[]>
  /** Extends leases; `lost` where the token no longer holds. */
  renew(batch: readonly ClaimRef[], leaseMs: number, signal: AbortSignal): Promise<Held[]>
  /**
   * Writes step results under the token; `lost` writes nothing. Results survive retries and replays of the key; a claim
   * with another fingerprint, or after the row expired, begins without them.
   */
  record(batch: readonly StepRecord[], signal: AbortSignal): Promise<Held[]>
  /** Ends claims under the token; `lost` writes nothing. An 'ended twice' is lost. */
  end(batch: readonly ClaimEnd[], retentionMs: number, signal: AbortSignal): Promise<Held[]>
  /**
   * Runs `effect` in a transaction whose last statement is `end`; `lost` rolls all of it back, and so does a throw,
   * which is passed on. A COMMIT without an answer is read back: `committed`, `lost` or a COMMIT_UNKNOWN error.
   */
  transact?<T>(
    effect: (tx: Tx) => Promise<T>,
    end: (result: T) => ClaimEnd,
    retentionMs: number,
    signal: AbortSignal,
  ): Promise<{ readonly status: 'committed'; readonly value: T } | { readonly status: 'lost' }>
  /** Deletes rows past their retention, at most `max`; returns how many. */
  purge(max: number, signal: AbortSignal): Promise<number>
  close(): Promise<void>
}

/** A transaction as SQL stores hand it to `handleInTransaction`: one statement at a time, `$1 …` placeholders. */
export interface SqlTransaction {
  query(
    sql: string,
    params?: readonly unknown[],
  ): Promise<{ readonly rows: Record<string, unknown>[]; readonly rowCount: number }>
}

export interface OutboxRow {
  readonly queue: string
  readonly copyId: string
  readonly jobId: string
  readonly partitionKey: string
  readonly ordered: boolean
  /** Epoch milliseconds before which it must not run. */
  readonly notBeforeMs?: number
  readonly body: Uint8Array
}

export interface OutboxClaim {
  readonly id: string
  readonly token: Token
  readonly row: OutboxRow
}

export interface OutboxStats {
  readonly pending: number
  readonly oldestUnsentAgeMs?: number
}

export interface OutboxStore<Tx = unknown> {
  readonly name: string
  prepare(mode: 'create' | 'check', signal: AbortSignal): Promise<void>
  /** Within the user's transaction: visible to the relay when, and only when, that commits. */
  insert(tx: Tx, rows: readonly OutboxRow[]): Promise<void>
  /** Unsent rows, oldest first, hidden from other relays for `leaseMs`. No row can be passed over for good. */
  claim(max: number, leaseMs: number, signal: AbortSignal): Promise<OutboxClaim[]>
  /** Marks rows as sent under their tokens. Only after the broker confirmed. */
  markSent(claims: readonly OutboxClaim[], signal: AbortSignal): Promise<void>
  /** Resolves when rows may be there (a commit in this process, a notification) or after `waitMs`. */
  wait(waitMs: number, signal: AbortSignal): Promise<void>
  stats(signal: AbortSignal): Promise<OutboxStats>
  close(): Promise<void>
}
