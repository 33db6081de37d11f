/**
 * The inbox in memory: who may start a key, how often it was started, what it returned. The rules are those every
 * store keeps; read them at {@link InboxStore.claim}. All of a call happens in one turn, so nothing comes between.
 */
import type { ClaimAnswer, ClaimEnd, ClaimRef, ClaimRequest, ClaimTimes, Clock, Held, InboxStore } from '@idemq/core'
import { IdemqError, systemClock } from '@idemq/core'
import type { MemoryInboxOptions } from './options.ts'

export interface Row {
  state: 'claimed' | ClaimEnd['state']
  token: number
  /** 'claimed': the end of the lease. 'released': until when other jobs are held back. Else 0. */
  leaseUntilMs: number
  fingerprint: string
  jobId: string
  replay: number
  /** Starts of the key in its current series. */
  used: number
  /** Lowest attempt of `replay` without a durable successor. */
  floor: number
  result: string | undefined
  steps: Record<string, string> | undefined
  expiresMs: number
}

const minRetryAfterMs = 50

/** What a database would hold. Any number of stores share it. */
export interface InboxTable {
  readonly clock: Clock
  readonly rows: Map<string, Row>
  /** Never goes back, so a token never repeats. */
  lastToken: number
}

export function inboxTable(clock: Clock): InboxTable {
  return { clock, rows: new Map(), lastToken: 0 }
}

/** An inbox of its own. It has no transaction to offer: `handleInTransaction` is refused. */
export function memoryInbox(options: MemoryInboxOptions = {}): InboxStore {
  return inboxOver(inboxTable(options.clock ?? systemClock))
}

export function inboxOver(table: InboxTable): InboxStore {
  const { clock, rows } = table
  let closed = false

  function refuseClosed(): void {
    if (closed) throw new IdemqError('CLOSED', 'the memory inbox is closed')
  }

  function claimOne(request: ClaimRequest, times: ClaimTimes, nowMs: number): ClaimAnswer {
    const id = rowId(request)
    const row = rows.get(id)
    const known = row && row.expiresMs > nowMs ? row : undefined
    if (row && isHeldFrom(row, request, nowMs)) return refusal(row, request, nowMs)
    if (known && !mayClaim(known, request)) return refusal(known, request, nowMs)
    const attempt = known ? startsWith(known, request) : request.attempt
    const steps = known?.fingerprint === request.fingerprint ? known.steps : undefined
    const crashed = known?.state === 'claimed'
    const token = ++table.lastToken
    rows.set(id, {
      state: 'claimed',
      token,
      leaseUntilMs: nowMs + times.leaseMs,
      fingerprint: request.fingerprint,
      jobId: request.jobId,
      replay: request.replay,
      used: attempt,
      floor: known && sameSeries(known, request) ? Math.max(known.floor, request.attempt) : request.attempt,
      result: undefined,
      steps,
      expiresMs: nowMs + times.retentionMs,
    })
    return { status: 'claimed', token, attempt, crashed, ...(steps && { steps: { ...steps } }) }
  }

  /** The row of a claim that still holds: by its token, never by time. */
  function held(ref: ClaimRef): Row | undefined {
    const row = rows.get(rowId(ref))
    return row?.state === 'claimed' && row.token === ref.token ? row : undefined
  }

  /** Applies `change` to each claim that still holds. */
  function eachHeld<T extends ClaimRef>(batch: readonly T[], change: (row: Row, item: T) => void): Held[] {
    refuseClosed()
    return batch.map((item) => {
      const row = held(item)
      if (!row) return 'lost'
      change(row, item)
      return 'held'
    })
  }

  return {
    name: 'memory',
    capabilities: { durability: 'memory', transactions: false, expiresItself: false },

    async prepare() {
      refuseClosed()
    },

    async claim(batch, times) {
      refuseClosed()
      const nowMs = clock.monotonicMs()
      return batch.map((request) => claimOne(request, times, nowMs))
    },

    async renew(batch, leaseMs) {
      const nowMs = clock.monotonicMs()
      return eachHeld(batch, (row) => {
        row.leaseUntilMs = nowMs + leaseMs
      })
    },

    async record(batch) {
      return eachHeld(batch, (row, { step, result }) => {
        row.steps = { ...row.steps, [step]: result }
      })
    },

    async end(batch, retentionMs) {
      const nowMs = clock.monotonicMs()
      return eachHeld(batch, (row, { state, floor, free, holdMs, result }) => {
        row.state = state
        row.floor = Math.max(row.floor, floor)
        row.used -= free ? 1 : 0
        row.result = result
        // Nothing asks for the steps of a completed key again.
        if (state === 'completed') row.steps = undefined
        row.leaseUntilMs = state === 'released' ? nowMs + holdMs : 0
        row.expiresMs = nowMs + retentionMs
      })
    },

    async purge(max) {
      refuseClosed()
      const nowMs = clock.monotonicMs()
      let purged = 0
      for (const [id, row] of rows) {
        if (purged === max) break
        if (row.expiresMs > nowMs || row.leaseUntilMs > nowMs) continue
        rows.delete(id)
        purged++
      }
      return purged
    },

    async close() {
      closed = true
    },
  }
}

/** With the length of the scope, no two pairs look alike whatever characters they are made of. */
function rowId({ scope, key }: { readonly scope: string; readonly key: string }): string {
  return `${scope.length}:${scope}${key}`
}

function sameSeries(row: Row, { jobId, replay }: ClaimRequest): boolean {
  return row.jobId === jobId && row.replay === replay
}

/** Whether this copy is one that has no durable successor. */
function atOrAboveFloor(row: Row, { replay, attempt }: ClaimRequest): boolean {
  return replay > row.replay || (replay === row.replay && attempt >= row.floor)
}

/** Whether a claim of anybody, or a release that holds other jobs back, is in the way of this copy. */
function isHeldFrom(row: Row, { jobId }: ClaimRequest, nowMs: number): boolean {
  return row.leaseUntilMs > nowMs && (row.state === 'claimed' || row.jobId !== jobId)
}

/** For a row that nobody holds and that has not expired. */
function mayClaim(row: Row, request: ClaimRequest): boolean {
  const otherJob = row.jobId !== request.jobId
  if (row.state === 'completed') return false
  if (row.state === 'failed') return otherJob || request.replay > row.replay
  return row.fingerprint === request.fingerprint && (otherJob || atOrAboveFloor(row, request))
}

/** The count that a claim of this row begins with: a new series, or one more of the same whichever job claims. */
function startsWith(row: Row, { jobId, replay, attempt }: ClaimRequest): number {
  const newSeries = row.state === 'failed' || (row.jobId === jobId && replay > row.replay)
  return newSeries ? attempt : Math.max(attempt, row.used + 1)
}

function refusal(row: Row, request: ClaimRequest, nowMs: number): ClaimAnswer {
  if (row.state === 'completed') {
    if (row.fingerprint !== request.fingerprint) return { status: 'mismatch' }
    return row.result === undefined ? { status: 'completed' } : { status: 'completed', result: row.result }
  }
  const failedForGood = row.state === 'failed' && request.replay <= row.replay
  if (row.jobId === request.jobId && (failedForGood || !atOrAboveFloor(row, request))) return { status: 'stale' }
  if (row.state !== 'failed' && row.fingerprint !== request.fingerprint) return { status: 'mismatch' }
  return { status: 'busy', retryAfterMs: Math.max(minRetryAfterMs, row.leaseUntilMs - nowMs) }
}
