/** Jobs of a worker whose effects are counted: the scene of tests in which something goes wrong meanwhile. */
import { connect, defineJob, fixed, type IdemqEvent, type Job, type Mq } from '@idemq/core'
import { expect, onTestFinished } from 'vitest'
import { type PostgresOptions, type PostgresTransaction, postgres } from '../src/index.ts'
import { freshSchema, type TestServer } from './server.ts'

export interface Numbered {
  readonly n: number
}

const numbered = {
  '~standard': { version: 1, vendor: 'test', validate: (value: unknown) => ({ value: value as Numbered }) },
} as const

/** Tried again at once, as often as it takes. */
export function numberedJob(name: string): Job<Numbered> {
  return defineJob(name, {
    queue: 'orders',
    payload: numbered,
    idempotencyKey: ({ n }) => `${name}:${n}`,
    timeoutMs: 20_000,
    retry: { maxAttempts: 50, backoff: fixed(50) },
  })
}

export interface Counted {
  readonly mq: Mq
  readonly schema: string
  readonly job: Job<Numbered>
  /** Codes of the troubles and failures so far. */
  readonly codes: Set<string>
  /** Each job's effect is a row, committed with its end. */
  work(before?: (n: number, tx: PostgresTransaction) => Promise<void>): Promise<void>
  /** Resolves once the effects of jobs 1 to `count` are there. Fails if one is there twice. */
  allDone(count: number): Promise<void>
}

export async function counted({ admin, url }: TestServer, options: Partial<PostgresOptions> = {}): Promise<Counted> {
  const schema = freshSchema()
  const adapter = postgres({ url, schema, pollMs: 20, ...options })
  const mq = await connect(adapter, { sendTimeoutMs: 30_000 })
  onTestFinished(() => mq.close())
  await adapter.driver.declare({ name: 'orders' }, 'create', new AbortController().signal)
  await admin.query(`CREATE TABLE ${schema}.effect (n int)`)
  const codes = new Set<string>()
  mq.on('*', (event: IdemqEvent) => {
    if (event.type === 'trouble' || event.type === 'failed') codes.add((event.error as { code?: string }).code ?? '')
  })
  const job = numberedJob('count')
  return {
    mq,
    schema,
    job,
    codes,
    async work(before = async () => {}) {
      const worker = mq.worker<PostgresTransaction>({ inbox: adapter.inbox, claimLeaseMs: 2_000, leaseMs: 2_000 })
      worker.handleInTransaction(job, async ({ n }, _job, tx) => {
        await before(n, tx)
        await tx.query(`INSERT INTO ${schema}.effect (n) VALUES ($1)`, [n])
      })
      await worker.start()
    },
    async allDone(count) {
      const done = async (): Promise<number[]> => {
        const { rows } = await admin.query(`SELECT n FROM ${schema}.effect ORDER BY n`)
        return rows.map(({ n }) => n as number)
      }
      const expected = Array.from({ length: count }, (_, i) => i + 1)
      await expect.poll(async () => new Set(await done()).size, { timeout: 30_000 }).toBe(count)
      expect(await done()).toEqual(expected)
    },
  }
}
