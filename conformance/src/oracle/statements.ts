/**
 * What the processes of a crash run state, in one append-only file outside the broker under test. A statement is on
 * the file before its process goes on, so a SIGKILL takes nothing back that was said. Lines of all processes lie in
 * one order, that of their writes; the oracle reasons by that order alone and never by a clock, except about delays.
 *
 * Pairs (`claiming`/`claimed`, `ending`/`ended` …) bracket a call: what it did happened between its two lines. A first
 * line without a second is a call whose outcome died with its process, and the oracle then assumes what exonerates.
 */
import { closeSync, openSync, readSync, writeSync } from 'node:fs'

/** A claim as it was asked for. `scope` is `group/jobName`. */
export interface StatedClaim {
  readonly scope: string
  readonly key: string
  readonly jobId: string
  readonly replay: number
  readonly attempt: number
  readonly fingerprint: string
}

export interface StatedAnswer {
  readonly status: 'claimed' | 'completed' | 'busy' | 'mismatch' | 'stale'
  readonly token?: string
  readonly attempt?: number
}

export interface StatedEnd {
  readonly scope: string
  readonly key: string
  readonly token: string
  readonly state: 'completed' | 'failed' | 'released'
  readonly floor: number
  readonly free: boolean
}

export interface StatedJob {
  readonly jobId: string
  readonly job: string
  readonly key: string
  readonly fingerprint: string
  /** Starts allowed in one series. */
  readonly maxAttempts: number
  /** How it may end when nothing but crashes happens; 'exhausted' is open to every job. */
  readonly mayEnd: readonly ('completed' | DeadReason)[]
  /** Where its effect is recorded: by the provider, or as a row of the database. */
  readonly effect: 'provider' | 'row'
  /** Set when it is enqueued within a transaction: it exists if, and only if, the row of this start was committed. */
  readonly startId?: string
}

type DeadReason = 'permanent' | 'key_mismatch'

export type Statement =
  /** A process is up. */
  | { readonly type: 'ready'; readonly role: string }
  /** About to enqueue; the job may exist from here on. */
  | ({ readonly type: 'attempted' } & StatedJob)
  /** `enqueue` resolved, or the transaction it was enqueued in was committed: from here on the job must not be lost. */
  | { readonly type: 'confirmed'; readonly jobId: string }
  /** The same two for bytes that are no envelope. `body` is base64. */
  | { readonly type: 'raw_attempted'; readonly body: string }
  | { readonly type: 'raw_confirmed'; readonly body: string }
  /** A copy is about to be sent that must not be delivered before `dueAtMs` (epoch). */
  | { readonly type: 'delaying'; readonly copyId: string; readonly dueAtMs: number }
  /** `delivery` is unique in the run; `prior` is the broker's own count, where it has one. */
  | {
      readonly type: 'received'
      readonly delivery: string
      readonly copyId: string
      readonly jobId: string
      readonly prior?: number
    }
  | { readonly type: 'settling'; readonly delivery: string }
  | { readonly type: 'settled'; readonly delivery: string; readonly status: string }
  | { readonly type: 'claiming'; readonly call: string; readonly claims: readonly StatedClaim[] }
  | { readonly type: 'claimed'; readonly call: string; readonly answers: readonly StatedAnswer[] }
  | { readonly type: 'ending'; readonly call: string; readonly ends: readonly StatedEnd[] }
  | { readonly type: 'ended'; readonly call: string; readonly held: readonly boolean[] }
  /** The inbox accepted the result of a step. */
  | {
      readonly type: 'memo'
      readonly scope: string
      readonly key: string
      readonly token: string
      readonly step: string
    }
  /** A dead letter was confirmed stored. */
  | { readonly type: 'dead_stored'; readonly jobId: string }
  /** The first thing a handler says. `token` is the claim it runs under, `startId` unique in the run. */
  | {
      readonly type: 'started'
      readonly scope: string
      readonly key: string
      readonly jobId: string
      readonly attempt: number
      readonly replay: number
      readonly token: string
      readonly startId: string
    }
  /** The handler of a start is about to ask to come back, which uses no attempt. */
  | { readonly type: 'snoozing'; readonly startId: string }
  /** The process was told to stop: what it hands back from here on uses no attempt. */
  | { readonly type: 'stopping' }
  /** The first thing the function of a step says. */
  | {
      readonly type: 'step_ran'
      readonly scope: string
      readonly key: string
      readonly step: string
      readonly startId: string
    }
  /** The provider did something for the first time under `providerKey`. Said by the provider itself. */
  | { readonly type: 'effect'; readonly businessKey: string; readonly providerKey: string }
  /** The next thing that happens to this process is SIGKILL. `where` is a crash point, an edge or 'crasher'. */
  | { readonly type: 'dying'; readonly where: string; readonly jobIds: readonly string[] }
  /** The next thing that happens to this process is SIGSTOP. */
  | { readonly type: 'freezing'; readonly where: string; readonly jobIds: readonly string[] }
  /** An event of core's stream that a report or test counts. */
  | { readonly type: 'event'; readonly event: string; readonly jobId?: string; readonly detail?: string }

/** A statement with who made it and when (epoch ms). */
export type StatedBy = Statement & { readonly by: string; readonly atMs: number }

export interface StatementLog {
  /** Appends one line, synchronously: when it returns the line survives the death of this process. */
  write(statement: Statement): void
  close(): void
}

/** Opens the log at `path` to append for the process named `by`. Any number of processes may append at once. */
export function openStatementLog(path: string, by: string): StatementLog {
  // O_APPEND: the kernel moves to the end and writes in one step, so lines of several processes never mix.
  const file = openSync(path, 'a')
  return {
    write: (statement) => writeSync(file, `${JSON.stringify({ ...statement, by, atMs: Date.now() })}\n`),
    close: () => closeSync(file),
  }
}

export interface LogFollower {
  /** Passes every complete line that is new since the last call to `visit`, in order. */
  poll(): void
  close(): void
}

/** Reads the log at `path` from its beginning while others append to it. */
export function followStatementLog(path: string, visit: (statement: StatedBy) => void): LogFollower {
  const file = openSync(path, 'a+')
  const chunk = Buffer.alloc(1 << 20)
  let offset = 0
  let rest = Buffer.alloc(0)
  return {
    poll() {
      for (;;) {
        const count = readSync(file, chunk, 0, chunk.length, offset)
        if (count === 0) return
        offset += count
        const bytes = Buffer.concat([rest, chunk.subarray(0, count)])
        const end = bytes.lastIndexOf(0x0a) + 1
        rest = Buffer.from(bytes.subarray(end))
        for (const line of bytes.subarray(0, end).toString('utf8').split('\n')) {
          if (line !== '') visit(JSON.parse(line) as StatedBy)
        }
      }
    },
    close: () => closeSync(file),
  }
}
