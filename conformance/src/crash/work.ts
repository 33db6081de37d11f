/** What the handlers of a run do. Each says that it started before it does anything. */
import { type JobContext, type Mq, PermanentError, RetryAfterError, type Worker } from '@idemq/core'
import type { LedgerClient } from '../oracle/ledger.ts'
import type { StatementLog } from '../oracle/statements.ts'
import { type CrashPayload, kinds } from './jobs.ts'
import { stateAttempt } from './producer.ts'
import { insertRow } from './rows.ts'
import type { Tap } from './tap.ts'

export interface WorkOptions {
  readonly worker: Worker
  readonly mq: Mq
  readonly tap: Tap
  readonly log: StatementLog
  readonly ledger: LedgerClient
  readonly name: string
  /** Kills this process; absent where that is not allowed. */
  readonly die?: (where: string, jobIds: readonly string[]) => void
}

const patientPauseMs = 2_500
const snoozeMs = 100
const latencyPerTimeMs = 8

export function addHandlers(options: WorkOptions): void {
  const { worker, mq, log, ledger, tap, name, die } = options
  let starts = 0

  const begin = (job: JobContext): string => {
    const scope = `default/${job.name}`
    const { id: jobId, key, attempt, replay } = job
    const startId = `${name}:${++starts}`
    log.write({ type: 'started', scope, key, jobId, attempt, replay, token: tap.tokenOf(scope, key), startId })
    job.signal.addEventListener('abort', () => log.write({ type: 'event', event: 'signal_aborted', jobId }))
    return startId
  }
  const step = <T>(
    job: JobContext,
    startId: string,
    stepName: string,
    effect: (providerKey: string) => T,
  ): Promise<T> =>
    job.step(stepName, async ({ idempotencyKey }) => {
      log.write({ type: 'step_ran', scope: `default/${job.name}`, key: job.key, step: stepName, startId })
      return await effect(idempotencyKey)
    }) as Promise<T>
  const charge = (job: JobContext, startId: string, times: number): Promise<unknown> =>
    step(job, startId, 'charge', async (providerKey) => {
      const latencyMs = times * latencyPerTimeMs
      const { chargeId } = await ledger.call({ op: 'charge', businessKey: job.key, providerKey, latencyMs })
      return chargeId
    })

  const plain = ['charge', 'double-click', 'mismatch', 'delayed', 'booked', 'follow-up'] as const
  for (const kind of plain.map((plainName) => kinds[plainName])) {
    worker.handle(kind.job, ({ times }, job) => charge(job, begin(job), times))
  }
  worker.handle(kinds.flaky.job, async ({ times }, job) => {
    const startId = begin(job)
    await charge(job, startId, times)
    if (job.attempt <= times) throw new Error(`attempt ${job.attempt} fails, ${times} do`)
    await step(job, startId, 'receipt', (providerKey) => `receipt for ${providerKey}`)
  })
  worker.handle(kinds.patient.job, async ({ times }, job) => {
    const startId = begin(job)
    if (job.attempt === 1) throw new RetryAfterError(patientPauseMs, 'the provider asked to wait')
    await charge(job, startId, times)
  })
  worker.handle(kinds.declined.job, async ({ times }, job) => {
    const startId = begin(job)
    if (job.replay < times) throw new PermanentError(`declined in replay ${job.replay}, until ${times}`)
    await charge(job, startId, times)
  })
  worker.handle(kinds.snoozer.job, async ({ times }, job) => {
    const startId = begin(job)
    const { visits } = await ledger.call({ op: 'visit', key: job.key })
    if (visits! > times) return charge(job, startId, times)
    log.write({ type: 'snoozing', startId })
    job.snooze(snoozeMs)
  })
  worker.handle(kinds.crasher.job, async ({ times }, job) => {
    const startId = begin(job)
    die?.('crasher', [job.id])
    await charge(job, startId, times)
  })
  const { inbox, outbox } = tap.adapter
  if (!inbox?.capabilities.transactions || !outbox) return
  worker.handleInTransaction(kinds.reserve.job, async (payload: CrashPayload, job, tx) => {
    const startId = begin(job)
    await insertRow(tx, job.key, startId)
    const followUp: CrashPayload = { ...payload, id: startId }
    const jobId = `${startId}-follow-up`
    log.write({ ...stateAttempt('follow-up', followUp, jobId), startId })
    await mq.outbox<unknown>().enqueue(tx, kinds['follow-up'].job, followUp, { jobId })
    if (job.attempt <= payload.times) throw new Error(`attempt ${job.attempt} rolls back, ${payload.times} do`)
  })
}
