/** What the tests with real processes share. */
import { mkdtemp, rm } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { connect, IdemqError } from '@idemq/core'
import { assertCrashable, type Broker, brokers, closeAdapter, openBroker } from '../src/crash/brokers.ts'
import { type CrashPayload, type KindName, kinds } from '../src/crash/jobs.ts'
import { stateAttempt } from '../src/crash/producer.ts'
import type { Run } from '../src/crash/run.ts'
import type { StatedBy } from '../src/oracle/statements.ts'

/** The brokers that outlive a process: the others have nothing to show here. Those with servers are, and are not started. */
export async function crashableBrokers(): Promise<Broker[]> {
  const directory = await mkdtemp(join(tmpdir(), 'idemq-test-'))
  const found: Broker[] = []
  for (const broker of brokers) if (broker.hasServer || (await outlivesProcesses(broker, directory))) found.push(broker)
  await rm(directory, { recursive: true, force: true })
  return found
}

/** Of these, one for each adapter: where what is shown is the adapter's doing and not the server's. */
export function oneForEachAdapter(found: readonly Broker[]): Broker[] {
  return found.filter(
    ({ adapterPackage }, i) => i === found.findIndex((other) => other.adapterPackage === adapterPackage),
  )
}

async function outlivesProcesses(broker: Broker, directory: string): Promise<boolean> {
  const { close, ...running } = await broker.start({ directory })
  const adapter = await openBroker({ ...broker, ...running })
  try {
    assertCrashable(adapter)
    return true
  } catch (error) {
    if (error instanceof IdemqError && error.code === 'UNSUPPORTED') return false
    throw error
  } finally {
    await closeAdapter(adapter)
    await close()
  }
}

export type Wanted<T extends StatedBy['type']> = Extract<StatedBy, { type: T }>

/** Statements of one type so far, by one process or by all. */
export function said<T extends StatedBy['type']>({ statements }: Run, type: T, by?: string): Wanted<T>[] {
  return statements.filter((s): s is Wanted<T> => s.type === type && (by === undefined || s.by === by))
}

/** Resolves with the first statement, old or new, that `matches`. Rejects after `limitMs`. */
export function hear(run: Run, what: string, matches: (s: StatedBy) => boolean, limitMs = 20_000): Promise<StatedBy> {
  const old = run.statements.find(matches)
  if (old) return Promise.resolve(old)
  return new Promise((resolve, reject) => {
    const timer = setTimeout(() => {
      unsubscribe()
      reject(new Error(`nobody said within ${limitMs} ms: ${what}`))
    }, limitMs)
    const unsubscribe = run.onStatement((statement) => {
      if (!matches(statement)) return
      clearTimeout(timer)
      unsubscribe()
      resolve(statement)
    })
  })
}

/** Enqueues from this process, saying so as a producer does. Returns the job's id. */
export async function enqueue(run: Run, name: KindName, payload: CrashPayload): Promise<string> {
  const mq = await connect(run.adapter)
  const jobId = `test-${name}-${payload.id}`
  run.state(stateAttempt(name, payload, jobId))
  await mq.enqueue(kinds[name].job, payload, { jobId })
  run.state({ type: 'confirmed', jobId })
  return jobId
}

/** What the oracle counts, with its findings beside it so that a failing test shows them. */
export async function judge(run: Run): Promise<{ readonly findings: readonly string[]; readonly jobs: number }> {
  const { findings, counts } = run.oracle.judge(await run.finals())
  return { findings, jobs: counts.jobs }
}
