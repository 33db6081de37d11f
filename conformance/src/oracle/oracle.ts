/**
 * Judges a crash run from its statements and from what is left at its end. It trusts nobody: not the broker, not the
 * inbox, not core. What is counted, and why a crash alone counts for nothing:
 *
 * `lost`: a job whose `enqueue` resolved (or whose transaction committed) that at the end is neither completed nor a
 * dead letter, after everything drained. Bytes that are no envelope must lie among the dead letters as they were sent.
 * A key reported complete without its effect is lost too.
 *
 * `unexpected`: what must not be there. A start, effect or dead letter of something nobody enqueued; a job enqueued in
 * a transaction that rolled back; a copy delivered before its time; a start of a copy that has a confirmed successor;
 * a dead letter for a reason its job cannot have, without its failures, or exhausted with starts left.
 *
 * `doubled`: effects that happened twice. (1) Two charges of one business key at the provider, which honours
 * idempotency keys: so the key that was passed changed. (2) A handler started under a claim that was asked for after
 * the completion of its key was recorded. (3) Two rows of one key written by `handleInTransaction`. (4) A step that ran
 * under a claim asked for after its result was recorded. A start after a crash within the handler is none of these:
 * no completion was recorded, so the handler must run again, and the effect stays single by its key. Nor is a start
 * under a claim granted before the completion (its process was stopped in between): its writes are fenced.
 *
 * `attempts_over`: starts of one series beyond `maxAttempts`. A series is a key's starts until it is dead-lettered or
 * replayed; starts given back (a snooze, a drain) are not in it.
 *
 * `stale_writes`: an end of a claim that was accepted after another worker had been granted the key, and a settlement
 * that was accepted after the broker had delivered the same copy again.
 */
import type { StatedAnswer, StatedBy, StatedClaim, StatedEnd, StatedJob } from './statements.ts'

/** A dead letter as it lies in the broker at the end. `reason` is absent where the body is no envelope. */
export interface FinalLetter {
  readonly jobId?: string
  readonly replay?: number
  readonly reason?: string
  readonly failures?: number
  /** Base64. */
  readonly body: string
}

/** What `handleInTransaction` wrote. */
export interface FinalRow {
  readonly key: string
  readonly startId: string
}

export interface Finals {
  readonly letters: readonly FinalLetter[]
  readonly rows: readonly FinalRow[]
}

export interface Counts {
  readonly jobs: number
  readonly lost: number
  readonly unexpected: number
  readonly doubled: number
  readonly attemptsOver: number
  readonly staleWrites: number
}

/** What became of the jobs a process had in hand when it was killed. */
export interface Aftermath {
  readonly where: string
  readonly kills: number
  readonly jobs: number
  readonly startedAgain: number
  readonly completed: number
  readonly dead: number
  /** Never confirmed and never seen again: the kill came before the broker had it. */
  readonly absent: number
}

export interface Verdict {
  readonly counts: Counts
  /** One line for each thing counted. */
  readonly findings: readonly string[]
  readonly aftermath: readonly Aftermath[]
}

export interface Oracle {
  add(statement: StatedBy): void
  /** Confirmed jobs that are neither completed nor dead-lettered yet, as far as statements tell. */
  underWay(): number
  judge(finals: Finals): Verdict
}

/** How much earlier than its time a copy may seem to arrive: two readings of one clock, rounded. */
const clockToleranceMs = 5

interface JobState {
  readonly stated: StatedJob
  confirmed: boolean
  seen: boolean
  /** Line of the last start, by replay. */
  readonly starts: Map<number, number>
  /** A dead letter was stored for it at some time. */
  deadStored: boolean
}

interface Grant {
  readonly by: string
  readonly claim: StatedClaim
  /** The count that the inbox answered. */
  readonly attempt: number
  readonly askedLine: number
  readonly grantedLine: number
  /** A handler started under it. */
  started: boolean
}

interface Series {
  readonly starts: Set<Grant>
  readonly jobId: string
  readonly replay: number
}

interface KeyState {
  readonly grants: Map<string, Grant>
  /** Claims whose answer died with its process: each may have been granted. */
  readonly unanswered: Map<string, { readonly claim: StatedClaim; readonly line: number }>
  /** By fingerprint and step: another payload under the key begins without the results of this one. */
  readonly memoLines: Map<string, number>
  readonly completedAs: Set<string>
  /** Line after which no claim may be granted. */
  completedLine: number
  lastEnd:
    | { readonly jobId: string; readonly end: StatedEnd; readonly replay: number; readonly line: number }
    | undefined
  series: Series | undefined
  /** 'yes': its end as failed was accepted. 'maybe': a dead letter was stored, the end may have died unsaid. */
  over: 'no' | 'maybe' | 'yes'
}

interface DeliveryState {
  readonly copyId: string
  readonly prior: number | undefined
  readonly line: number
  settlingLine: number
}

/** A job that a process had in hand when it was killed. */
interface Hand {
  readonly jobId: string
  readonly job: JobState
  readonly line: number
  /** The replay that was under way. */
  readonly replay: number
}

const never = Number.POSITIVE_INFINITY

export function createOracle(): Oracle {
  const jobs = new Map<string, JobState>()
  const keys = new Map<string, KeyState>()
  const calls = new Map<string, { line: number; claims?: readonly StatedClaim[]; ends?: readonly StatedEnd[] }>()
  const charges = new Map<string, Set<string>>()
  const rawAttempted = new Set<string>()
  const rawConfirmed = new Set<string>()
  const dueAtMs = new Map<string, number>()
  const deliveries = new Map<string, DeliveryState>()
  /** By copyId. */
  const lastDelivery = new Map<string, DeliveryState>()
  const grantOfStart = new Map<string, Grant>()
  const deaths: { where: string; hands: Hand[] }[] = []
  const findings = { lost: [], unexpected: [], doubled: [], attemptsOver: [], staleWrites: [] } as Record<
    Exclude<keyof Counts, 'jobs'>,
    string[]
  >
  let line = 0

  const keyState = ({ scope, key }: { scope: string; key: string }): KeyState => {
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
  const stateOfJob = ({ job, key }: StatedJob): KeyState => keyState({ scope: `default/${job}`, key })
  const completed = (state: KeyState, fingerprint: string): void => {
    state.completedAs.add(fingerprint)
    state.completedLine = Math.min(state.completedLine, line)
  }
  const see = (jobId: string, what: string): JobState | undefined => {
    const job = jobs.get(jobId)
    if (!job) findings.unexpected.push(`${what} of job ${jobId}, which nobody enqueued`)
    else job.seen = true
    return job
  }

  const answered = (by: string, claim: StatedClaim, answer: StatedAnswer, askedLine: number): void => {
    const state = keyState(claim)
    if (answer.status === 'completed') completed(state, claim.fingerprint)
    if (answer.status !== 'claimed') return
    const grant: Grant = { by, claim, attempt: answer.attempt ?? 0, askedLine, grantedLine: line, started: false }
    state.grants.set(`${by} ${answer.token}`, grant)
    const { lastEnd } = state
    if (lastEnd && lastEnd.jobId !== claim.jobId) state.lastEnd = undefined
    else if (lastEnd && lastEnd.line < askedLine && isSuperseded(state, claim)) {
      const { end } = lastEnd
      findings.unexpected.push(
        `${claim.scope} ${claim.key}: copy ${claim.replay}.${claim.attempt} of ${claim.jobId} was granted to ${by} ` +
          `though it had been ${end.state} with floor ${lastEnd.replay}.${end.floor}`,
      )
    }
  }

  const started = (by: string, start: Extract<StatedBy, { type: 'started' }>): void => {
    const { scope, key, jobId, token, startId } = start
    const job = see(jobId, 'a start')
    if (job) job.starts.set(start.replay, line)
    const state = keyState(start)
    const grant = state.grants.get(`${by} ${token}`)
    if (!grant) {
      findings.unexpected.push(`${scope} ${key}: start ${startId} runs under no claim that was granted`)
      return
    }
    grant.started = true
    grantOfStart.set(startId, grant)
    if (state.completedLine < grant.askedLine) {
      findings.doubled.push(`${scope} ${key}: start ${startId} was granted after the key was completed`)
    }
    if (job) countStart(state, grant, job.stated, `${scope} ${key}: start ${startId}`)
  }

  const countStart = (state: KeyState, grant: Grant, { maxAttempts }: StatedJob, what: string): void => {
    const { jobId, replay, attempt } = grant.claim
    const { series } = state
    const restarted = grant.attempt === attempt && (series?.jobId !== jobId || replay > series.replay)
    const replayed = series?.jobId === jobId && replay > series.replay
    if (!series || replayed || state.over === 'yes' || (state.over === 'maybe' && restarted)) {
      state.series = { starts: new Set([grant]), jobId, replay }
      state.over = 'no'
      return
    }
    series.starts.add(grant)
    if (series.starts.size > maxAttempts) {
      findings.attemptsOver.push(`${what} is number ${series.starts.size} of its series, ${maxAttempts} are allowed`)
    }
  }

  const ending = (by: string, end: StatedEnd): void => {
    const state = keyState(end)
    const grant = state.grants.get(`${by} ${end.token}`)
    // Given back, even if the answer dies with its process.
    if (grant && end.free) state.series?.starts.delete(grant)
  }

  const ended = (by: string, end: StatedEnd, held: boolean, askedLine: number): void => {
    const state = keyState(end)
    const grant = state.grants.get(`${by} ${end.token}`)
    if (!grant) {
      if (held) findings.staleWrites.push(`${end.scope} ${end.key}: ${by} ended as ${end.state} without a claim`)
      return
    }
    if (!held) {
      if (end.free && grant.started) state.series?.starts.add(grant)
      return
    }
    const takenOver = [...state.grants.values()].find(
      (other) => other !== grant && other.askedLine > grant.grantedLine && other.grantedLine < askedLine,
    )
    if (takenOver) {
      findings.staleWrites.push(
        `${end.scope} ${end.key}: ${by} ended as ${end.state} under ${end.token} after ${takenOver.by} had taken over`,
      )
    }
    if (end.state === 'completed') completed(state, grant.claim.fingerprint)
    if (end.state === 'failed') state.over = 'yes'
    const { jobId, replay } = grant.claim
    state.lastEnd = { jobId, end, replay, line }
  }

  const received = (delivery: Extract<StatedBy, { type: 'received' }>): void => {
    const { copyId, jobId, prior, atMs } = delivery
    see(jobId, 'a delivery')
    const due = dueAtMs.get(copyId)
    if (due !== undefined && atMs + clockToleranceMs < due) {
      findings.unexpected.push(`copy ${copyId} was delivered ${due - atMs} ms before its time`)
    }
    const state: DeliveryState = { copyId, prior, line, settlingLine: never }
    deliveries.set(delivery.delivery, state)
    lastDelivery.set(copyId, state)
  }

  const settled = (by: string, id: string, status: string): void => {
    const mine = deliveries.get(id)
    const last = mine && lastDelivery.get(mine.copyId)
    if (!mine || !last || last === mine || status !== 'settled') return
    // A count that did not rise is another message of the same copyId, not this one delivered again.
    const again = mine.prior !== undefined && last.prior !== undefined && last.prior > mine.prior
    if (again && last.line > mine.line && last.line < mine.settlingLine) {
      findings.staleWrites.push(`${by} settled ${mine.copyId} after it had been delivered again`)
    }
  }

  const ranStep = (step: Extract<StatedBy, { type: 'step_ran' }>): void => {
    const grant = grantOfStart.get(step.startId)
    const memoLine = keyState(step).memoLines.get(`${grant?.claim.fingerprint} ${step.step}`)
    if (memoLine === undefined || !grant || grant.askedLine < memoLine) return
    findings.doubled.push(`${step.scope} ${step.key}: step '${step.step}' ran again though its result was recorded`)
  }

  const add = (statement: StatedBy): void => {
    line++
    const { by } = statement
    switch (statement.type) {
      case 'attempted':
        jobs.set(statement.jobId, {
          stated: statement,
          confirmed: false,
          seen: false,
          starts: new Map(),
          deadStored: false,
        })
        break
      case 'confirmed':
        jobs.get(statement.jobId)!.confirmed = true
        break
      case 'raw_attempted':
        rawAttempted.add(statement.body)
        break
      case 'raw_confirmed':
        rawConfirmed.add(statement.body)
        break
      case 'delaying':
        // A copy sent twice is stored once, with either time: the earlier one exonerates.
        dueAtMs.set(statement.copyId, Math.min(statement.dueAtMs, dueAtMs.get(statement.copyId) ?? never))
        break
      case 'received':
        received(statement)
        break
      case 'settling': {
        const delivery = deliveries.get(statement.delivery)
        if (delivery) delivery.settlingLine = line
        break
      }
      case 'settled':
        settled(by, statement.delivery, statement.status)
        break
      case 'claiming':
        calls.set(statement.call, { line, claims: statement.claims })
        for (const claim of statement.claims) keyState(claim).unanswered.set(statement.call, { claim, line })
        break
      case 'claimed': {
        const call = calls.get(statement.call)!
        calls.delete(statement.call)
        call.claims!.forEach((claim, i) => {
          keyState(claim).unanswered.delete(statement.call)
          answered(by, claim, statement.answers[i]!, call.line)
        })
        break
      }
      case 'ending':
        calls.set(statement.call, { line, ends: statement.ends })
        for (const end of statement.ends) ending(by, end)
        break
      case 'ended': {
        // A transaction that rolled back before its end has no 'ending'.
        const call = calls.get(statement.call)
        calls.delete(statement.call)
        call?.ends?.forEach((end, i) => {
          ended(by, end, statement.held[i] === true, call.line)
        })
        break
      }
      case 'memo': {
        const { grants, memoLines } = keyState(statement)
        const { fingerprint = '' } = grants.get(`${by} ${statement.token}`)?.claim ?? {}
        const memo = `${fingerprint} ${statement.step}`
        if (!memoLines.has(memo)) memoLines.set(memo, line)
        break
      }
      case 'dead_stored': {
        const job = jobs.get(statement.jobId)
        if (!job) break
        job.deadStored = true
        const state = stateOfJob(job.stated)
        if (state.over === 'no') state.over = 'maybe'
        break
      }
      case 'started':
        started(by, statement)
        break
      case 'step_ran':
        ranStep(statement)
        break
      case 'effect':
        charges.set(statement.businessKey, (charges.get(statement.businessKey) ?? new Set()).add(statement.providerKey))
        break
      case 'dying':
        deaths.push({ where: statement.where, hands: handsOf(statement.jobIds) })
        break
    }
  }

  const handsOf = (jobIds: readonly string[]): Hand[] =>
    [...new Set(jobIds)].flatMap((jobId) => {
      const job = jobs.get(jobId)
      return job ? [{ jobId, job, line, replay: Math.max(0, ...job.starts.keys()) }] : []
    })
  const isDone = ({ stated }: JobState): boolean => stateOfJob(stated).completedAs.has(stated.fingerprint)

  const judge = ({ letters, rows }: Finals): Verdict => {
    const rowsOfKey = new Map<string, number>()
    for (const { key } of rows) rowsOfKey.set(key, (rowsOfKey.get(key) ?? 0) + 1)
    const committed = new Set(rows.map(({ startId }) => startId))
    const deadJobs = new Set(letters.flatMap(({ jobId }) => (jobId === undefined ? [] : [jobId])))
    const rawDead = new Set(letters.filter(({ jobId }) => jobId === undefined).map(({ body }) => body))
    const knownKeys = new Set([...jobs.values()].map(({ stated }) => stated.key))

    for (const [jobId, job] of jobs) {
      const { startId, effect, key, job: name } = job.stated
      if (startId !== undefined) job.confirmed = committed.has(startId)
      if (startId !== undefined && !job.confirmed && (job.seen || deadJobs.has(jobId))) {
        findings.unexpected.push(`${name} ${key}: job ${jobId} exists though its transaction rolled back`)
      }
      const done = isDone(job)
      if (job.confirmed && !done && !deadJobs.has(jobId)) {
        findings.lost.push(`${name} ${key}: job ${jobId} is neither completed nor a dead letter`)
      }
      if (done && !(effect === 'row' ? rowsOfKey.has(key) : charges.has(key))) {
        findings.lost.push(`${name} ${key}: completed without its effect`)
      }
    }
    for (const body of rawConfirmed) {
      if (!rawDead.has(body)) findings.lost.push(`bytes '${Buffer.from(body, 'base64')}' are no dead letter`)
    }
    for (const letter of letters) judgeLetter(letter)
    for (const [businessKey, providerKeys] of charges) {
      if (!knownKeys.has(businessKey)) findings.unexpected.push(`a charge of ${businessKey}, which nobody enqueued`)
      for (const again of [...providerKeys].slice(1))
        findings.doubled.push(`${businessKey} was charged again as ${again}`)
    }
    for (const [key, count] of rowsOfKey) {
      if (!knownKeys.has(key)) findings.unexpected.push(`a row of ${key}, which nobody enqueued`)
      for (let i = 1; i < count; i++) findings.doubled.push(`${key} has ${count} rows`)
    }
    return {
      counts: {
        jobs: [...jobs.values()].filter(({ confirmed }) => confirmed).length + rawConfirmed.size,
        lost: findings.lost.length,
        unexpected: findings.unexpected.length,
        doubled: findings.doubled.length,
        attemptsOver: findings.attemptsOver.length,
        staleWrites: findings.staleWrites.length,
      },
      findings: Object.entries(findings).flatMap(([name, lines]) => lines.map((finding) => `${name}: ${finding}`)),
      aftermath: aftermathOf(deadJobs),
    }
  }

  const judgeLetter = ({ jobId, reason, failures, body }: FinalLetter): void => {
    if (jobId === undefined) {
      if (rawAttempted.has(body)) return
      findings.unexpected.push(`a dead letter '${Buffer.from(body, 'base64').subarray(0, 80)}', which nobody sent`)
      return
    }
    const job = jobs.get(jobId)
    if (!job) return void findings.unexpected.push(`a dead letter of job ${jobId}, which nobody enqueued`)
    const { mayEnd, maxAttempts, job: name, key } = job.stated
    const what = `${name} ${key}: dead letter of ${jobId}`
    if (reason === 'exhausted') {
      const { grants, unanswered } = stateOfJob(job.stated)
      const claims = grants.size + unanswered.size
      if (claims < maxAttempts)
        findings.unexpected.push(`${what} is exhausted after ${claims} of ${maxAttempts} claims`)
    } else if (!mayEnd.some((end) => end === reason)) {
      findings.unexpected.push(`${what} for the reason '${reason}'`)
    } else if (reason === 'permanent' && !failures) {
      findings.unexpected.push(`${what} lost its failures`)
    }
  }

  const aftermathOf = (deadJobs: ReadonlySet<string>): Aftermath[] => {
    const startedAgain = ({ job, line: diedLine, replay }: Hand): boolean =>
      [...job.starts].some(([started, last]) => started <= replay && last > diedLine)
    return [...Map.groupBy(deaths, ({ where }) => where)].map(([where, kills]) => {
      const hands = kills.flatMap((death) => death.hands)
      return {
        where,
        kills: kills.length,
        jobs: hands.length,
        startedAgain: hands.filter(startedAgain).length,
        completed: hands.filter(({ job }) => isDone(job)).length,
        dead: hands.filter(({ job, jobId }) => !isDone(job) && deadJobs.has(jobId)).length,
        absent: hands.filter(({ job, jobId }) => !job.confirmed && !isDone(job) && !deadJobs.has(jobId)).length,
      }
    })
  }

  const underWay = (): number => {
    let count = 0
    for (const job of jobs.values()) {
      if (job.confirmed && !isDone(job) && !job.deadStored) count++
    }
    return count
  }

  return { add, underWay, judge }
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
