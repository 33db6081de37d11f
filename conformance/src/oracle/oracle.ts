/**
 * Judges a crash run from its statements and from what is left at its end. It trusts nobody: not the broker, not the
 * inbox, not core. What is counted, and why a crash alone counts for nothing:
 *
 * `lost`: a job whose `enqueue` resolved (or whose transaction committed) that at the end is neither completed nor a
 * dead letter, after everything drained; and one whose transaction was said to be committed, and its row is not there.
 * Bytes that are no envelope must lie among the dead letters as they were sent.
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
 * replayed; starts given back are not in it, if their handler asked to snooze or their process was told to stop. One
 * given back without an answer counts as given back: asked again, the inbox can only say that the claim is gone.
 *
 * `stale_writes`: an end of a claim that was accepted after another worker had been granted the key, and a settlement
 * that was accepted after the broker had delivered the same copy again.
 */
import { claimed, claiming, ended, ending, ranStep, recorded, started } from './claims.ts'
import { delaying, received, settled, settling } from './deliveries.ts'
import { createRecord, type Hand, isDone, keyOfJob, type RunRecord } from './record.ts'
import type { StatedBy } from './statements.ts'
import { type Finals, judge, type Verdict } from './verdict.ts'

export interface Oracle {
  /** Takes statements in the order of the log. */
  add(statement: StatedBy): void
  /** Confirmed jobs that are neither completed nor dead-lettered yet, as far as statements tell. */
  underWay(): number
  /** Once, after the last statement. */
  judge(finals: Finals): Verdict
}

export function createOracle(): Oracle {
  const record = createRecord()
  return {
    add(statement) {
      record.line++
      add(record, statement)
    },
    underWay() {
      let count = 0
      for (const job of record.jobs.values()) {
        if (job.confirmed && !job.deadStored && !isDone(record, job)) count++
      }
      return count
    },
    judge: (finals) => judge(record, finals),
  }
}

function add(record: RunRecord, statement: StatedBy): void {
  switch (statement.type) {
    case 'attempted': {
      const { jobId } = statement
      const job = { jobId, stated: statement, confirmed: false, seen: false, starts: new Map(), deadStored: false }
      record.jobs.set(jobId, job)
      return
    }
    case 'confirmed':
      record.jobs.get(statement.jobId)!.confirmed = true
      return
    case 'raw_attempted':
      record.rawAttempted.add(statement.body)
      return
    case 'raw_confirmed':
      record.rawConfirmed.add(statement.body)
      return
    case 'delaying':
      return delaying(record, statement)
    case 'received':
      return received(record, statement)
    case 'settling':
      return settling(record, statement)
    case 'settled':
      return settled(record, statement)
    case 'claiming':
      return claiming(record, statement)
    case 'claimed':
      return claimed(record, statement)
    case 'started':
      return started(record, statement)
    case 'snoozing': {
      const grant = record.grantOfStart.get(statement.startId)
      if (grant) grant.snoozed = true
      return
    }
    case 'step_ran':
      return ranStep(record, statement)
    case 'memo':
      return recorded(record, statement)
    case 'ending':
      return ending(record, statement)
    case 'ended':
      return ended(record, statement)
    case 'dead_stored':
      return deadStored(record, statement.jobId)
    case 'effect': {
      const { businessKey, providerKey } = statement
      record.charges.set(businessKey, (record.charges.get(businessKey) ?? new Set()).add(providerKey))
      return
    }
    case 'stopping':
      record.stopping.add(statement.by)
      return
    case 'dying':
      record.deaths.push({ where: statement.where, hands: handsOf(record, statement.jobIds) })
      return
    case 'ready':
    case 'freezing':
    case 'event':
      return
  }
}

function deadStored(record: RunRecord, jobId: string): void {
  const job = record.jobs.get(jobId)
  if (!job) return
  job.deadStored = true
  const state = keyOfJob(record, job.stated)
  if (state.over === 'no') state.over = 'maybe'
}

function handsOf({ jobs, line }: RunRecord, jobIds: readonly string[]): Hand[] {
  return [...new Set(jobIds)].flatMap((jobId) => {
    const job = jobs.get(jobId)
    return job ? [{ job, line, replay: Math.max(0, ...job.starts.keys()) }] : []
  })
}
