/** What the oracle remembers of a run. Instants are line numbers of the log. */
import type { StatedClaim, StatedEnd, StatedJob } from './statements.ts'

export interface JobState {
  readonly jobId: string
  readonly stated: StatedJob
  /** Its `enqueue` resolved, or its transaction committed. */
  confirmed: boolean
  /** It was delivered or started. */
  seen: boolean
  /** Line of the last start, by replay. */
  readonly starts: Map<number, number>
  /** A dead letter was stored for it at some time. */
  deadStored: boolean
}

/** A claim that the inbox granted. */
export interface Grant {
  readonly by: string
  readonly claim: StatedClaim
  /** The count that the inbox answered. */
  readonly attempt: number
  readonly askedLine: number
  readonly grantedLine: number
  /** A handler started under it. */
  started: boolean
  /** That handler asked to come back, which uses no attempt. */
  snoozed: boolean
}

/** Starts of a key that count towards `maxAttempts` together. */
export interface Series {
  readonly starts: Set<Grant>
  readonly jobId: string
  readonly replay: number
}

export interface KeyState {
  /** By process and token: a token is only ever used where it was granted. */
  readonly grants: Map<string, Grant>
  /** Claims whose answer is not known, by call: each may have been granted. */
  readonly unanswered: Map<string, { readonly claim: StatedClaim; readonly line: number }>
  /** By fingerprint and step: another payload under the key begins without the results of this one. */
  readonly memoLines: Map<string, number>
  /** Fingerprints it was completed with. */
  readonly completedAs: Set<string>
  /** No claim that is asked for after this line may be granted. */
  completedLine: number
  lastEnd:
    | { readonly jobId: string; readonly replay: number; readonly end: StatedEnd; readonly line: number }
    | undefined
  series: Series | undefined
  /** 'yes': its end as failed was accepted. 'maybe': a dead letter was stored, the end may have died unsaid. */
  over: 'no' | 'maybe' | 'yes'
}

export interface DeliveryState {
  readonly copyId: string
  readonly prior: number | undefined
  readonly line: number
  settlingLine: number
}

/** A job that a process had in hand when it was killed. */
export interface Hand {
  readonly job: JobState
  readonly line: number
  /** The replay that was under way. */
  readonly replay: number
}

export interface Death {
  readonly where: string
  readonly hands: readonly Hand[]
}

export type Findings = Record<'lost' | 'unexpected' | 'doubled' | 'attemptsOver' | 'staleWrites', string[]>

export interface RunRecord {
  /** The line being read. */
  line: number
  readonly findings: Findings
  readonly jobs: Map<string, JobState>
  readonly keys: Map<string, KeyState>
  readonly calls: Map<string, OpenCall>
  readonly grantOfStart: Map<string, Grant>
  /** Processes that were told to stop: what they hand back uses no attempt. */
  readonly stopping: Set<string>
  /** Provider keys by business key. */
  readonly charges: Map<string, Set<string>>
  readonly rawAttempted: Set<string>
  readonly rawConfirmed: Set<string>
  /** Epoch milliseconds by copyId. */
  readonly dueAtMs: Map<string, number>
  readonly deliveries: Map<string, DeliveryState>
  readonly lastDelivery: Map<string, DeliveryState>
  readonly deaths: Death[]
}

export interface OpenCall {
  readonly line: number
  readonly claims?: readonly StatedClaim[]
  readonly ends?: readonly StatedEnd[]
}

export const never: number = Number.POSITIVE_INFINITY

export function createRecord(): RunRecord {
  return {
    line: 0,
    findings: { lost: [], unexpected: [], doubled: [], attemptsOver: [], staleWrites: [] },
    jobs: new Map(),
    keys: new Map(),
    calls: new Map(),
    grantOfStart: new Map(),
    stopping: new Set(),
    charges: new Map(),
    rawAttempted: new Set(),
    rawConfirmed: new Set(),
    dueAtMs: new Map(),
    deliveries: new Map(),
    lastDelivery: new Map(),
    deaths: [],
  }
}

export function keyState(
  { keys }: RunRecord,
  { scope, key }: { readonly scope: string; readonly key: string },
): KeyState {
  const slot = `${scope}\0${key}`
  const known = keys.get(slot)
  if (known) return known
  const fresh: KeyState = {
    grants: new Map(),
    unanswered: new Map(),
    memoLines: new Map(),
    completedAs: new Set(),
    completedLine: never,
    lastEnd: undefined,
    series: undefined,
    over: 'no',
  }
  keys.set(slot, fresh)
  return fresh
}

export function keyOfJob(record: RunRecord, { job, key }: StatedJob): KeyState {
  return keyState(record, { scope: `default/${job}`, key })
}

export function isDone(record: RunRecord, { stated }: JobState): boolean {
  return keyOfJob(record, stated).completedAs.has(stated.fingerprint)
}

/** The job, marked as seen; nobody's job is a finding. */
export function see({ jobs, findings }: RunRecord, jobId: string, what: string): JobState | undefined {
  const job = jobs.get(jobId)
  if (!job) findings.unexpected.push(`${what} of job ${jobId}, which nobody enqueued`)
  else job.seen = true
  return job
}

export function grantKey(by: string, token: string | undefined): string {
  return `${by} ${token}`
}
