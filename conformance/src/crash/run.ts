/** What every run of children shares: a fresh broker, the log, the provider, the oracle, and the names of children. */
import { mkdtemp, rm } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import type { Adapter, QueueStats } from '@idemq/core'
import { startLedger } from '../oracle/ledger.ts'
import { createOracle, type Oracle } from '../oracle/oracle.ts'
import { followStatementLog, openStatementLog, type StatedBy } from '../oracle/statements.ts'
import type { FinalLetter, FinalRow, Finals } from '../oracle/verdict.ts'
import { assertCrashable, type Broker, closeAdapter, openBroker } from './brokers.ts'
import type { ChildConfig } from './child-config.ts'
import { type Child, startChild } from './child-process.ts'
import { crashQueue, defaultMix, type Mix } from './jobs.ts'
import type { Role } from './plans.ts'
import { readBody } from './tap.ts'
import { rowsTable } from './work.ts'

export interface RunOptions {
  readonly broker: Broker
  readonly seed: number
  readonly mix?: Mix
  readonly control?: string
  /** Most jobs under way that producers add to. @default 150 */
  readonly maxUnderWay?: number
  /** @default 1_000 */
  readonly leaseMs?: number
  /** @default 1_000 */
  readonly claimLeaseMs?: number
  /** Leaves the log and the broker's files where they are. @default false */
  readonly keep?: boolean
}

export interface Run {
  /** The broker as it is, without tap or control. */
  readonly adapter: Adapter
  readonly oracle: Oracle
  readonly directory: string
  readonly leaseMs: number
  /** Every statement so far. */
  readonly statements: readonly StatedBy[]
  /** Says what this process does itself, such as enqueueing for a test. */
  state(statement: Parameters<ReturnType<typeof openStatementLog>['write']>[0]): void
  /** Calls back on every new statement; returns what unsubscribes. */
  onStatement(listener: (statement: StatedBy) => void): () => void
  start(role: Role, options?: Partial<ChildConfig>): Child
  /** Producers may add to what is under way, or not. */
  setProducing(producing: boolean): void
  /** Reads what was said since the last look, now. */
  poll(): void
  stats(): Promise<QueueStats>
  outboxPending(): Promise<number>
  finals(): Promise<Finals>
  /** Kills what still runs and removes every trace, unless `keep`. */
  close(): Promise<void>
}

const pollMs = 15
const countMs = 100
const countedStates = ['ready', 'delayed', 'inFlight'] as const
const queue = { name: crashQueue, group: 'default' }
const never = new AbortController().signal

/** @throws IdemqError UNSUPPORTED where there is nothing to judge */
export async function openRun(options: RunOptions): Promise<Run> {
  const { broker, seed, control, mix = defaultMix, maxUnderWay = 150, keep = false } = options
  const { leaseMs = 1_000, claimLeaseMs = 1_000 } = options
  const directory = await mkdtemp(join(tmpdir(), 'idemq-crash-'))
  const url = broker.freshUrl(directory)
  const adapter = await openBroker(broker, url)
  try {
    assertCrashable(adapter)
    await adapter.driver.declare(queue, 'create', never)
    await adapter.inbox?.prepare('create', never)
    await adapter.outbox?.prepare('create', never)
    await createRowsTable(adapter)
  } catch (error) {
    await closeAdapter(adapter)
    await rm(directory, { recursive: true, force: true })
    throw error
  }
  // Without transactions and an outbox there is nothing to reserve in.
  const transactional = adapter.inbox?.transact !== undefined && adapter.outbox !== undefined

  const logPath = join(directory, 'statements.jsonl')
  const log = openStatementLog(logPath, 'parent')
  const oracle = createOracle()
  const statements: StatedBy[] = []
  const listeners = new Set<(statement: StatedBy) => void>()
  let producing = true
  let underWay = 0
  const countable = countedStates.every((name) => adapter.driver.capabilities.stats.includes(name))
  const follower = followStatementLog(logPath, (statement) => {
    statements.push(statement)
    oracle.add(statement)
    for (const listener of listeners) listener(statement)
  })
  const poll = (): void => {
    follower.poll()
    if (!countable) underWay = oracle.underWay()
  }
  const timer = setInterval(poll, pollMs)
  // Where the broker counts, its count decides: a job that it lost must not keep producers waiting for ever.
  const outboxPending = async (): Promise<number> => (await adapter.outbox?.stats(never))?.pending ?? 0
  const stats = (): Promise<QueueStats> => adapter.driver.stats(queue, never)
  const counter = setInterval(async () => {
    if (countable) underWay = sumOf(await stats()) + (await outboxPending())
  }, countMs)
  const ledger = await startLedger({
    log,
    mayProduce: (want) => {
      const count = producing ? Math.max(0, Math.min(want, maxUnderWay - underWay)) : 0
      // Until the next count: what is handed out now is not in the broker yet.
      underWay += count
      return count
    },
  })
  const children = new Map<string, Child>()
  let started = 0

  return {
    adapter,
    oracle,
    directory,
    leaseMs,
    statements,
    state: (statement) => void log.write(statement),
    onStatement(listener) {
      listeners.add(listener)
      return () => listeners.delete(listener)
    },
    start(role, overrides = {}) {
      const name = `${role}-${++started}`
      const config: ChildConfig = {
        name,
        role,
        url,
        adapterPackage: broker.adapterPackage,
        logPath,
        ledgerPort: ledger.port,
        seed,
        mix: transactional ? mix : { ...mix, reserve: 0 },
        // What is aimed at a point must get there.
        lethal: overrides.plan !== undefined && overrides.plan.kind !== 'point',
        ...(control !== undefined && { control }),
        leaseMs,
        claimLeaseMs,
        concurrency: 6,
        prefetch: 12,
        ...overrides,
      }
      const child = startChild(config, join(directory, 'compile-cache'))
      children.set(name, child)
      child.exited.then(
        () => children.delete(name),
        () => children.delete(name),
      )
      return child
    },
    setProducing(next) {
      producing = next
    },
    poll,
    stats,
    outboxPending,
    async finals() {
      poll()
      const pending = countable ? sumOf(await stats()) + (await outboxPending()) : 0
      return { letters: await readLetters(adapter), rows: await readRows(adapter), pending }
    },
    async close() {
      for (const child of children.values()) child.kill()
      await Promise.allSettled([...children.values()].map((child) => child.exited))
      clearInterval(timer)
      clearInterval(counter)
      follower.close()
      await ledger.close()
      log.close()
      await closeAdapter(adapter)
      if (!keep) await rm(directory, { recursive: true, force: true })
    },
  }
}

function sumOf(stats: QueueStats): number {
  return countedStates.reduce((sum, name) => sum + (stats[name] ?? 0), 0)
}

async function readLetters({ driver }: Adapter): Promise<FinalLetter[]> {
  const letters: FinalLetter[] = []
  await driver.scanDead(
    queue,
    async ({ body }) => {
      const envelope = readBody(driver.codec, body)
      const raw = Buffer.from(body).toString('base64')
      if (!envelope?.dead) letters.push({ body: raw })
      else {
        const { job_id: jobId, failures = [], dead } = envelope
        letters.push({ jobId, reason: dead.reason, failures: failures.length, body: raw })
      }
      return 'keep'
    },
    never,
  )
  return letters
}

/** A claim of our own, under which a statement can be committed. */
const setupClaim = { scope: 'default/crash-setup', key: 'rows', fingerprint: '', jobId: 'setup', replay: 0, attempt: 1 }
const retentionMs = 3_600_000

async function createRowsTable({ inbox }: Adapter): Promise<void> {
  if (!inbox?.transact) return
  const [answer] = await inbox.claim([setupClaim], { leaseMs: 60_000, retentionMs }, never)
  if (answer?.status !== 'claimed') throw new Error(`the broker is not empty: its inbox answers '${answer?.status}'`)
  const { scope, key } = setupClaim
  const end = { scope, key, token: answer.token, state: 'completed', floor: 1, free: false, holdMs: 0 } as const
  await inbox.transact(
    (tx) => asSql(tx).query(`CREATE TABLE ${rowsTable} (key text, start_id text)`),
    () => end,
    retentionMs,
    never,
  )
}

async function readRows({ inbox }: Adapter): Promise<FinalRow[]> {
  if (!inbox?.transact) return []
  let rows: FinalRow[] = []
  const { scope, key } = setupClaim
  // Under no valid token: whatever it reads, it is rolled back as lost.
  await inbox.transact(
    async (tx) => {
      const answer = await asSql(tx).query(`SELECT key, start_id FROM ${rowsTable}`)
      rows = answer.rows.map((row) => ({ key: String(row.key), startId: String(row.start_id) }))
    },
    () => ({ scope, key, token: 0, state: 'completed', floor: 1, free: false, holdMs: 0 }),
    retentionMs,
    never,
  )
  return rows
}

interface Sql {
  query(sql: string): Promise<{ rows: Record<string, unknown>[] }>
}

function asSql(tx: unknown): Sql {
  return tx as Sql
}
