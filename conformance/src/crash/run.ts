/** What every run of children shares: a fresh broker, the log, the provider, the oracle, and the names of children. */
import { mkdtemp, rm } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { type Adapter, IdemqError, type QueueStats, sleep, systemClock } from '@idemq/core'
import type { BedProxy } from '../bed/index.ts'
import { startLedger } from '../oracle/ledger.ts'
import { createOracle, type Oracle } from '../oracle/oracle.ts'
import { followStatementLog, openStatementLog, type StatedBy } from '../oracle/statements.ts'
import type { FinalLetter, Finals } from '../oracle/verdict.ts'
import {
  assertCrashable,
  assertOwnServer,
  type Broker,
  type BrokerServer,
  closeAdapter,
  openBroker,
  type RunningBroker,
} from './brokers.ts'
import type { ChildConfig } from './child-config.ts'
import { type Child, startChild } from './child-process.ts'
import { crashQueue, defaultMix, type Mix } from './jobs.ts'
import type { Role } from './plans.ts'
import { createRowsTable, readRows } from './rows.ts'
import { readBody } from './tap.ts'

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
  /** Children reach the broker through a network that can be made bad. @default false */
  readonly net?: boolean
  /** The server forgets when it is killed: for a negative control. @default false */
  readonly volatile?: boolean
  /** Leaves the log and the broker's files where they are. @default false */
  readonly keep?: boolean
}

export interface Run {
  /** The broker as it is, without tap or control. */
  readonly adapter: Adapter
  readonly oracle: Oracle
  /** The way to the broker that no fault is on. */
  readonly directUrl: string
  /** The broker's server, where the run has one of its own. */
  readonly server: BrokerServer | undefined
  /** The network between the children and the broker, where the run has `net`. */
  readonly network: BedProxy | undefined
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
/** How long the broker may be away while this process asks it something. */
const patienceMs = 30_000
const pauseMs = 100

/**
 * @throws IdemqError UNSUPPORTED where there is nothing to judge, or the faults asked for need a server that the run
 * does not have
 */
export async function openRun(options: RunOptions): Promise<Run> {
  const { broker, seed, control, mix = defaultMix, maxUnderWay = 150, keep = false } = options
  const { leaseMs = 1_000, claimLeaseMs = 1_000, net = false, volatile = false } = options
  if (net) assertOwnServer(broker, '--net')
  if (volatile) assertOwnServer(broker, 'a server that forgets')
  const directory = await mkdtemp(join(tmpdir(), 'idemq-crash-'))
  let running: RunningBroker | undefined
  let opened: Adapter | undefined
  let network: BedProxy | undefined
  try {
    running = await broker.start({ directory, volatile })
    if (net) network = await running.server?.proxy()
    opened = await openBroker({ ...broker, ...running })
    assertCrashable(opened)
    await opened.driver.declare(queue, 'create', never)
    await assertEmpty(opened)
    await opened.inbox?.prepare('create', never)
    await opened.outbox?.prepare('create', never)
    await createRowsTable(opened, never)
    // So that it forgets jobs, not the tables for them.
    if (volatile) await running.server?.restart()
  } catch (error) {
    if (opened) await closeAdapter(opened)
    await running?.close()
    await rm(directory, { recursive: true, force: true })
    throw error
  }
  const adapter = opened
  const { url: directUrl, storeUrl, server, close: closeBroker } = running
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
  const outboxPending = (): Promise<number> =>
    patiently(async (signal) => (await adapter.outbox?.stats(signal))?.pending ?? 0)
  const stats = (): Promise<QueueStats> => patiently((signal) => adapter.driver.stats(queue, signal))
  const closing = new AbortController()
  const counting = countable ? count() : Promise.resolve()
  async function count(): Promise<void> {
    while (!closing.signal.aborted) {
      try {
        underWay = sumOf(await adapter.driver.stats(queue, closing.signal))
        underWay += (await adapter.outbox?.stats(closing.signal))?.pending ?? 0
      } catch (error) {
        // A server that is away or has forgotten the queue has nothing to count; the last count stands.
        if (!(error instanceof IdemqError)) throw error
      }
      await sleep(systemClock, countMs, closing.signal)
    }
  }
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
    directUrl,
    server,
    network,
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
        url: network?.url ?? directUrl,
        adapterPackage: broker.adapterPackage,
        ...(storeUrl !== undefined && { storeUrl }),
        logPath,
        ledgerPort: ledger.port,
        seed,
        mix: transactional ? mix : { ...mix, reserve: 0, booked: 0 },
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
      return {
        letters: await patiently((signal) => readLetters(adapter, signal)),
        rows: await patiently((signal) => readRows(adapter, signal)),
        pending,
      }
    },
    async close() {
      for (const child of children.values()) child.kill()
      await Promise.allSettled([...children.values()].map((child) => child.exited))
      clearInterval(timer)
      closing.abort()
      await counting
      follower.close()
      await ledger.close()
      log.close()
      await closeAdapter(adapter)
      await closeBroker()
      if (!keep) await rm(directory, { recursive: true, force: true })
    },
  }
}

function sumOf(stats: QueueStats): number {
  return countedStates.reduce((sum, name) => sum + (stats[name] ?? 0), 0)
}

async function assertEmpty({ driver }: Adapter): Promise<void> {
  const stats = await driver.stats(queue, never)
  if (sumOf(stats) + (stats.dead ?? 0) === 0) return
  const text = `${driver.name}: a run needs an empty broker, and queue '${queue.name}' holds ${JSON.stringify(stats)}`
  throw new IdemqError('UNSUPPORTED', text)
}

/** Repeats what only reads while the broker is away for now: its server may just have been started again. */
async function patiently<T>(read: (signal: AbortSignal) => Promise<T>): Promise<T> {
  const untilMs = performance.now() + patienceMs
  for (;;) {
    try {
      return await read(AbortSignal.timeout(patienceMs))
    } catch (error) {
      if (!(error instanceof IdemqError && error.retryable) || performance.now() > untilMs) throw error
      await sleep(systemClock, pauseMs)
    }
  }
}

async function readLetters({ driver }: Adapter, signal: AbortSignal): Promise<FinalLetter[]> {
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
    signal,
  )
  return letters
}
