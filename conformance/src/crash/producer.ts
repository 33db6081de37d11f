/** The producer: enqueues what the mix draws, saying before and after what it knows. */
import { fingerprintOf, IdemqError, type Mq, sleep, systemClock } from '@idemq/core'
import type { LedgerClient } from '../oracle/ledger.ts'
import type { StatementLog } from '../oracle/statements.ts'
import type { ChildConfig } from './child-config.ts'
import { type CrashPayload, crashQueue, type Draft, draft, type KindName, kinds } from './jobs.ts'
import { commit, insertRow } from './rows.ts'
import type { Tap } from './tap.ts'

export interface ProducerOptions {
  readonly mq: Mq
  readonly tap: Tap
  readonly log: StatementLog
  readonly ledger: LedgerClient
  readonly config: ChildConfig
  readonly signal: AbortSignal
}

const round = 8
const pauseMs = 30
const callTimeoutMs = 10_000

export async function produce(options: ProducerOptions): Promise<void> {
  const { config, ledger, signal } = options
  if (config.burst) return burst(options)
  while (!signal.aborted) {
    const { from, count } = await ledger.call({ op: 'reserve', want: round })
    if (count === 0) {
      await sleep(systemClock, pauseMs, signal)
      continue
    }
    const drafts: Draft[] = []
    for (let n = from!; n < from! + count!; n++) {
      const drawn = draft(config.seed, config.mix, n)
      if (drawn.kind === 'raw') await sendRaw(options, drawn.bytes)
      else if (drawn.kind === 'booked') await book(options, drawn.payload)
      else drafts.push(drawn)
    }
    // Every other round in batches, the rest one by one.
    if (Math.floor(from! / round) % 2 === 0) await enqueueInBatches(options, drafts)
    else for (const drawn of drafts) await enqueueOne(options, drawn)
  }
}

async function burst(options: ProducerOptions): Promise<void> {
  const { kind, payload, count, parties } = options.config.burst!
  await options.ledger.call({ op: 'meet', name: 'burst', parties })
  await Promise.all(
    Array.from({ length: count }, () => enqueueOne(options, { kind: kind as Draft['kind'], payload, delayMs: 0 })),
  )
}

async function enqueueOne(options: ProducerOptions, { kind, payload, delayMs }: Draft): Promise<void> {
  const jobId = attempt(options, kind, payload)
  await options.mq.enqueue(kinds[kind].job, payload, { jobId, delayMs })
  options.log.write({ type: 'confirmed', jobId })
}

async function enqueueInBatches(options: ProducerOptions, drafts: readonly Draft[]): Promise<void> {
  for (const [kind, same] of Map.groupBy(drafts, (drawn) => drawn.kind)) {
    const jobIds = same.map(({ payload }) => attempt(options, kind, payload))
    const results = await options.mq.enqueueMany(
      kinds[kind].job,
      same.map(({ payload }) => payload),
      (_, i) => ({ jobId: jobIds[i]!, delayMs: same[i]!.delayMs }),
    )
    results.forEach((result, i) => {
      if (result.status === 'failed') throw result.error
      options.log.write({ type: 'confirmed', jobId: jobIds[i]! })
    })
  }
}

/** Enqueues through the outbox within a transaction of the producer's own, which the oracle knows by its row. */
async function book(options: ProducerOptions, payload: CrashPayload): Promise<void> {
  const { mq, tap, log, config } = options
  const jobId = `${config.name}-${++attempts}`
  log.write({ ...stateAttempt('booked', payload, jobId), startId: jobId })
  const rollsBack = payload.times === 3
  const write = async (tx: unknown): Promise<void> => {
    await insertRow(tx, keyOf('booked', payload), jobId)
    await mq.outbox<unknown>().enqueue(tx, kinds.booked.job, payload, { jobId })
    if (rollsBack) throw new RolledBack()
  }
  try {
    await commit(tap.adapter.inbox!, jobId, write, deadline())
    log.write({ type: 'confirmed', jobId })
  } catch (error) {
    if (!(error instanceof RolledBack)) throw error
  }
}

class RolledBack extends Error {}

let attempts = 0

function attempt({ log, config }: ProducerOptions, kind: KindName, payload: CrashPayload): string {
  const jobId = `${config.name}-${++attempts}`
  log.write(stateAttempt(kind, payload, jobId))
  return jobId
}

/** The statement that a job of `kind` may exist from here on. */
export function stateAttempt(
  name: KindName,
  payload: CrashPayload,
  jobId: string,
): Parameters<StatementLog['write']>[0] & { type: 'attempted' } {
  const { job, mayEnd } = kinds[name]
  return {
    type: 'attempted',
    jobId,
    job: job.name,
    key: keyOf(name, payload),
    fingerprint: fingerprintOf(payload),
    maxAttempts: job.maxAttempts,
    mayEnd,
    effect: name === 'reserve' ? 'row' : 'provider',
  }
}

export function keyOf(name: KindName, payload: CrashPayload): string {
  const { idempotencyKey } = kinds[name].job
  if (typeof idempotencyKey !== 'function') throw new Error(`${name} has no business key`)
  return idempotencyKey(payload)
}

async function sendRaw({ tap, log, config }: ProducerOptions, bytes: Uint8Array): Promise<void> {
  const body = Buffer.from(bytes).toString('base64')
  const copyId = `${config.name}-raw-${++attempts}`
  const message = { copyId, jobId: copyId, body: bytes, partitionKey: copyId, ordered: false, delayMs: 0 }
  log.write({ type: 'raw_attempted', body })
  const { driver } = tap.adapter
  await driver.declare({ name: crashQueue, group: 'default' }, 'create', deadline())
  const [sent] = await driver.send({ name: crashQueue }, [message], deadline())
  if (sent?.status === 'stored') log.write({ type: 'raw_confirmed', body })
}

/** Aborts with an error that says that the call may be tried again. */
function deadline(): AbortSignal {
  const late = new AbortController()
  const error = new IdemqError('TIMEOUT', `a producer's call was not answered within ${callTimeoutMs} ms`)
  systemClock.schedule(() => late.abort(error), callTimeoutMs, true)
  return late.signal
}
