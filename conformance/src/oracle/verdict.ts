/** What the oracle says at the end, from all that was stated and from what is left in the broker. */
import { type Hand, isDone, type JobState, keyOfJob, type RunRecord } from './record.ts'

/** A dead letter as it lies in the broker at the end. `jobId` is absent where the body is no envelope. */
export interface FinalLetter {
  readonly jobId?: string
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
  /** Messages still ready, delayed or in flight, if the run did not drain. So many jobs may be unresolved, not lost. */
  readonly pending: number
}

export interface Counts {
  readonly jobs: number
  readonly lost: number
  readonly unexpected: number
  readonly doubled: number
  readonly attemptsOver: number
  readonly staleWrites: number
}

/** What became of the jobs that processes had in hand when they were killed at one place. */
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
  /** Jobs written to an outbox, by what became of their transaction. */
  readonly outbox: { readonly committed: number; readonly rolledBack: number }
}

/** Judges once: it adds to the findings of `record`. */
export function judge(record: RunRecord, finals: Finals): Verdict {
  const { findings, jobs, rawConfirmed } = record
  const deadJobs = new Set(finals.letters.flatMap(({ jobId }) => (jobId === undefined ? [] : [jobId])))
  judgeJobs(record, finals, deadJobs)
  judgeRaw(record, finals)
  for (const letter of finals.letters) judgeLetter(record, letter)
  judgeEffects(record, finals)
  const inOutbox = [...jobs.values()].filter(({ stated }) => stated.startId !== undefined)
  const committed = inOutbox.filter(({ confirmed }) => confirmed).length
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
    aftermath: aftermathOf(record, deadJobs),
    outbox: { committed, rolledBack: inOutbox.length - committed },
  }
}

function judgeJobs(record: RunRecord, { rows, pending }: Finals, deadJobs: ReadonlySet<string>): void {
  const { findings, jobs, charges } = record
  const committed = new Set(rows.map(({ startId }) => startId))
  const keysWithRow = new Set(rows.map(({ key }) => key))
  const unresolved: string[] = []
  for (const job of jobs.values()) {
    const { jobId, stated } = job
    const { startId, effect, key, job: name } = stated
    if (startId !== undefined && !committed.has(startId)) {
      if (job.confirmed) {
        findings.lost.push(`${name} ${key}: the row of ${jobId} is gone though it was committed`)
        continue
      }
      if (job.seen || deadJobs.has(jobId)) {
        findings.unexpected.push(`${name} ${key}: job ${jobId} exists though its transaction rolled back`)
      }
    } else if (startId !== undefined) job.confirmed = true
    const done = isDone(record, job)
    if (job.confirmed && !done && !deadJobs.has(jobId)) {
      unresolved.push(`${name} ${key}: job ${jobId} is neither completed nor a dead letter`)
    }
    if (done && !(effect === 'row' ? keysWithRow.has(key) : charges.has(key))) {
      findings.lost.push(`${name} ${key}: completed without its effect`)
    }
  }
  // What still lies in the broker is not lost, whichever of them it is.
  findings.lost.push(...unresolved.slice(pending))
}

function judgeRaw({ findings, rawConfirmed }: RunRecord, { letters }: Finals): void {
  const dead = new Set(letters.filter(({ jobId }) => jobId === undefined).map(({ body }) => body))
  for (const body of rawConfirmed) {
    if (!dead.has(body)) findings.lost.push(`bytes '${Buffer.from(body, 'base64')}' are no dead letter`)
  }
}

function judgeLetter(record: RunRecord, { jobId, reason, failures, body }: FinalLetter): void {
  const { unexpected } = record.findings
  if (jobId === undefined) {
    if (record.rawAttempted.has(body)) return
    unexpected.push(`a dead letter '${Buffer.from(body, 'base64').subarray(0, 80)}', which nobody sent`)
    return
  }
  const job = record.jobs.get(jobId)
  if (!job) {
    unexpected.push(`a dead letter of job ${jobId}, which nobody enqueued`)
    return
  }
  const { mayEnd, maxAttempts, job: name, key } = job.stated
  const what = `${name} ${key}: dead letter of ${jobId}`
  if (reason === 'exhausted') {
    const { grants, unanswered } = keyOfJob(record, job.stated)
    const claims = grants.size + unanswered.size
    if (claims < maxAttempts) unexpected.push(`${what} is exhausted after ${claims} of ${maxAttempts} claims`)
  } else if (!mayEnd.some((end) => end === reason)) {
    unexpected.push(`${what} for the reason '${reason}'`)
  } else if (reason === 'permanent' && !failures) {
    unexpected.push(`${what} lost its failures`)
  }
}

function judgeEffects({ findings, jobs, charges }: RunRecord, { rows }: Finals): void {
  const known = new Set([...jobs.values()].map(({ stated }) => stated.key))
  for (const [businessKey, providerKeys] of charges) {
    if (!known.has(businessKey)) findings.unexpected.push(`a charge of ${businessKey}, which nobody enqueued`)
    for (const again of [...providerKeys].slice(1))
      findings.doubled.push(`${businessKey} was charged again as ${again}`)
  }
  for (const [key, same] of Map.groupBy(rows, (row) => row.key)) {
    if (!known.has(key)) findings.unexpected.push(`a row of ${key}, which nobody enqueued`)
    for (const again of same.slice(1)) findings.doubled.push(`${key} has another row, of start ${again.startId}`)
  }
}

function aftermathOf(record: RunRecord, deadJobs: ReadonlySet<string>): Aftermath[] {
  const done = ({ job }: Hand): boolean => isDone(record, job)
  const dead = ({ job }: { readonly job: JobState }): boolean => deadJobs.has(job.jobId)
  const startedAgain = ({ job, line, replay }: Hand): boolean =>
    [...job.starts].some(([started, last]) => started <= replay && last > line)
  return [...Map.groupBy(record.deaths, ({ where }) => where)].map(([where, deaths]) => {
    const hands = deaths.flatMap((death) => death.hands)
    return {
      where,
      kills: deaths.length,
      jobs: hands.length,
      startedAgain: hands.filter(startedAgain).length,
      completed: hands.filter(done).length,
      dead: hands.filter((hand) => !done(hand) && dead(hand)).length,
      absent: hands.filter((hand) => !hand.job.confirmed && !done(hand) && !dead(hand)).length,
    }
  })
}
