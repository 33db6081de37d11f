/** What the oracle makes of claims, starts, steps and ends. */
import { type Grant, grantKey, type KeyState, keyState, type RunRecord, see } from './record.ts'
import type { StatedAnswer, StatedBy, StatedClaim, StatedEnd, StatedJob } from './statements.ts'

type Said<T extends StatedBy['type']> = Extract<StatedBy, { readonly type: T }>

export function claiming(record: RunRecord, { call, claims }: Said<'claiming'>): void {
  const { line } = record
  record.calls.set(call, { line, claims })
  for (const claim of claims) keyState(record, claim).unanswered.set(call, { claim, line })
}

export function claimed(record: RunRecord, { call, answers, by }: Said<'claimed'>): void {
  const { line, claims = [] } = record.calls.get(call)!
  record.calls.delete(call)
  for (const [i, claim] of claims.entries()) {
    keyState(record, claim).unanswered.delete(call)
    answered(record, by, claim, answers[i]!, line)
  }
}

function answered(record: RunRecord, by: string, claim: StatedClaim, answer: StatedAnswer, askedLine: number): void {
  const state = keyState(record, claim)
  if (answer.status === 'completed') completed(record, state, claim.fingerprint)
  if (answer.status !== 'claimed') return
  const { attempt = 0, token } = answer
  const grantedLine = record.line
  const grant: Grant = { by, claim, attempt, askedLine, grantedLine, started: false, snoozed: false }
  state.grants.set(grantKey(by, token), grant)
  const { lastEnd } = state
  if (lastEnd && lastEnd.jobId !== claim.jobId) state.lastEnd = undefined
  else if (lastEnd && lastEnd.line < askedLine && isSuperseded(state, claim)) {
    record.findings.unexpected.push(
      `${claim.scope} ${claim.key}: copy ${claim.replay}.${claim.attempt} of ${claim.jobId} was granted to ${by} ` +
        `though it had been ${lastEnd.end.state} with floor ${lastEnd.replay}.${lastEnd.end.floor}`,
    )
  }
}

/** True if `claim` is of a copy below the floor of the last end, and nobody else can have claimed in between. */
function isSuperseded({ lastEnd, unanswered }: KeyState, claim: StatedClaim): boolean {
  if (!lastEnd) return false
  for (const other of unanswered.values()) {
    if (other.claim.jobId !== claim.jobId && other.line > lastEnd.line) return false
  }
  const { end, replay } = lastEnd
  if (end.state === 'completed') return false
  if (claim.replay !== replay) return claim.replay < replay
  return end.state === 'failed' || claim.attempt < end.floor
}

function completed(record: RunRecord, state: KeyState, fingerprint: string): void {
  state.completedAs.add(fingerprint)
  state.completedLine = Math.min(state.completedLine, record.line)
}

export function started(record: RunRecord, start: Said<'started'>): void {
  const { by, scope, key, jobId, token, startId } = start
  const { findings } = record
  const job = see(record, jobId, 'a start')
  job?.starts.set(start.replay, record.line)
  const state = keyState(record, start)
  const grant = state.grants.get(grantKey(by, token))
  if (!grant) {
    findings.unexpected.push(`${scope} ${key}: start ${startId} runs under no claim that was granted`)
    return
  }
  grant.started = true
  record.grantOfStart.set(startId, grant)
  if (state.completedLine < grant.askedLine) {
    findings.doubled.push(`${scope} ${key}: start ${startId} was granted after the key was completed`)
  }
  if (job) countStart(record, state, grant, job.stated, `${scope} ${key}: start ${startId}`)
}

function countStart(record: RunRecord, state: KeyState, grant: Grant, { maxAttempts }: StatedJob, what: string): void {
  const { jobId, replay, attempt } = grant.claim
  const { series } = state
  const sameJob = series?.jobId === jobId
  const replayed = sameJob && replay > series.replay
  // Where it is not known whether the series was ended, the inbox's own count tells, if a new one may begin at all.
  const restarted = state.over === 'maybe' && !sameJob && grant.attempt === attempt
  if (!series || replayed || restarted || state.over === 'yes') {
    state.series = { starts: new Set([grant]), jobId, replay }
    state.over = 'no'
    return
  }
  series.starts.add(grant)
  if (series.starts.size > maxAttempts) {
    const { size } = series.starts
    record.findings.attemptsOver.push(`${what} is number ${size} of its series, ${maxAttempts} are allowed`)
  }
}

export function ranStep(record: RunRecord, { scope, key, step, startId }: Said<'step_ran'>): void {
  const grant = record.grantOfStart.get(startId)
  const memoLine = keyState(record, { scope, key }).memoLines.get(`${grant?.claim.fingerprint} ${step}`)
  if (memoLine === undefined || !grant || grant.askedLine < memoLine) return
  record.findings.doubled.push(`${scope} ${key}: step '${step}' ran again though its result was recorded`)
}

export function recorded(record: RunRecord, { by, scope, key, token, step }: Said<'memo'>): void {
  const { grants, memoLines } = keyState(record, { scope, key })
  const memo = `${grants.get(grantKey(by, token))?.claim.fingerprint} ${step}`
  if (!memoLines.has(memo)) memoLines.set(memo, record.line)
}

export function ending(record: RunRecord, { by, call, ends }: Said<'ending'>): void {
  record.calls.set(call, { line: record.line, ends })
  for (const end of ends) {
    const state = keyState(record, end)
    const grant = state.grants.get(grantKey(by, end.token))
    // Given back, even if the answer dies with its process. Not just because core says so: only for a known reason.
    if (grant && end.free && (grant.snoozed || record.stopping.has(by))) state.series?.starts.delete(grant)
  }
}

export function ended(record: RunRecord, { by, call, held }: Said<'ended'>): void {
  // A transaction that rolled back before its end had no 'ending'.
  const open = record.calls.get(call)
  record.calls.delete(call)
  for (const [i, end] of (open?.ends ?? []).entries()) endAnswered(record, by, end, held[i] === true, open!.line)
}

function endAnswered(record: RunRecord, by: string, end: StatedEnd, held: boolean, askedLine: number): void {
  const { findings } = record
  const state = keyState(record, end)
  const grant = state.grants.get(grantKey(by, end.token))
  const what = `${end.scope} ${end.key}: ${by} ended as ${end.state}`
  if (!held) {
    if (end.free && grant?.started && !mayHaveEnded(record, end)) state.series?.starts.add(grant)
    return
  }
  if (!grant) {
    findings.staleWrites.push(`${what} under no claim that was granted`)
    return
  }
  const takenOver = [...state.grants.values()].find(
    (other) => other !== grant && other.askedLine > grant.grantedLine && other.grantedLine < askedLine,
  )
  if (takenOver) findings.staleWrites.push(`${what} under ${end.token} after ${takenOver.by} had taken over`)
  if (end.state === 'completed') completed(record, state, grant.claim.fingerprint)
  if (end.state === 'failed') state.over = 'yes'
  const { jobId, replay } = grant.claim
  state.lastEnd = { jobId, replay, end, line: record.line }
}

/** True if an earlier try to end the claim got no answer: it may be why this one was refused. */
function mayHaveEnded({ calls }: RunRecord, { scope, key, token }: StatedEnd): boolean {
  for (const { ends = [] } of calls.values()) {
    if (ends.some((other) => other.scope === scope && other.key === key && other.token === token)) return true
  }
  return false
}
