import { describe, expect, it, onTestFinished } from 'vitest'
import { altered, during, numberedJob, openScene, type Scene, type SceneOptions } from '../test/scene.ts'
import { type ManualClock, sleep } from './clock.ts'
import { decodeEnvelope } from './envelope.ts'
import { IdemqError } from './errors.ts'
import type { OutboxRow, OutboxStore } from './store.ts'

/** Rows of one transaction, put into the table at its commit. */
type Tx = { rows: OutboxRow[] }

interface Row {
  readonly id: string
  readonly row: OutboxRow
  hiddenUntilMs: number
  token: number
}

/** An outbox in memory under the test's clock, and what was done to it. */
function table(clock: ManualClock): {
  store: OutboxStore<Tx>
  rows: Row[]
  commit: (tx: Tx) => void
  marked: string[]
} {
  const rows: Row[] = []
  const marked: string[] = []
  let lastToken = 0
  const store: OutboxStore<Tx> = {
    name: 'table',
    prepare: async () => {},
    insert: async (tx, added) => void tx.rows.push(...added),
    async claim(max, leaseMs) {
      const nowMs = clock.monotonicMs()
      const claimed = rows.filter((row) => row.hiddenUntilMs <= nowMs).slice(0, max)
      for (const row of claimed) {
        row.hiddenUntilMs = nowMs + leaseMs
        row.token = ++lastToken
      }
      return claimed.map(({ id, row, token }) => ({ id, row, token }))
    },
    async markSent(claims) {
      for (const { id, token } of claims) {
        const at = rows.findIndex((row) => row.id === id && row.token === token)
        if (at < 0) continue
        rows.splice(at, 1)
        marked.push(id)
      }
    },
    wait: (waitMs, signal) => sleep(clock, waitMs, signal),
    stats: async () => ({ pending: rows.length }),
    close: async () => {},
  }
  const commit = (tx: Tx): void => {
    for (const row of tx.rows) rows.push({ id: `${rows.length}-${row.jobId}`, row, hiddenUntilMs: 0, token: 0 })
  }
  return { store, rows, commit, marked }
}

async function opened(options?: SceneOptions): Promise<{ scene: Scene } & ReturnType<typeof table>> {
  const scene = await openScene(options)
  return { scene, ...table(scene.clock) }
}

const job = numberedJob()

describe('Outbox', () => {
  it('writes what enqueue would send, and nothing before the commit', async () => {
    const { scene, store, rows, commit } = await opened()
    const tx: Tx = { rows: [] }
    const options = { delayMs: 5_000, orderingKey: 'k', correlationId: 'c' }
    const answer = await scene.mq.outbox(store).enqueue(tx, job, { n: 1 }, options)
    expect(rows).toEqual([])
    commit(tx)
    const [{ row }] = rows as [Row]
    expect(row).toMatchObject({
      queue: 'work',
      copyId: `${answer.jobId}.0.1.0`,
      jobId: answer.jobId,
      partitionKey: 'k',
      ordered: true,
      notBeforeMs: scene.clock.now() + 5_000,
    })
    expect(decodeEnvelope(row.body)).toMatchObject({ job_id: answer.jobId, payload: { n: 1 }, correlation_id: 'c' })
  })

  it('refuses what enqueue refuses, and all of enqueueMany for one of them', async () => {
    const { scene, store } = await opened()
    const tx: Tx = { rows: [] }
    const outbox = scene.mq.outbox(store)
    await expect(outbox.enqueue(tx, job, { n: 'x' } as never)).rejects.toMatchObject({ code: 'INVALID_PAYLOAD' })
    await expect(outbox.enqueue(tx, job, { n: 1 }, { delayMs: -1 })).rejects.toMatchObject({ code: 'INVALID_OPTION' })
    await expect(outbox.enqueueMany(tx, job, [{ n: 1 }, { n: 'x' } as never])).rejects.toMatchObject({
      code: 'INVALID_PAYLOAD',
    })
    await expect(outbox.enqueueMany(tx, job, [{ n: 1 }], { jobId: 'x' } as object)).rejects.toMatchObject({
      code: 'INVALID_OPTION',
    })
    expect(tx.rows).toEqual([])
    expect(await outbox.enqueueMany(tx, job, [{ n: 1 }, { n: 2 }])).toHaveLength(2)
    expect(tx.rows).toHaveLength(2)
  })
})

describe('Relay', () => {
  /** Commits jobs 1…count and starts a relay. */
  async function relaying(
    count: number,
    options?: SceneOptions & { relay?: { batch?: number; leaseMs?: number; pollMs?: number } },
  ): Promise<Awaited<ReturnType<typeof opened>> & { stop: () => Promise<void> }> {
    const all = await opened(options)
    const tx: Tx = { rows: [] }
    const payloads = Array.from({ length: count }, (_, i) => ({ n: i + 1 }))
    await all.scene.mq.outbox(all.store).enqueueMany(tx, job, payloads)
    all.commit(tx)
    const relay = all.scene.mq.relay({ outbox: all.store, ...options?.relay })
    await relay.start()
    onTestFinished(() => during(all.scene.clock, relay.stop()))
    return { ...all, stop: () => relay.stop() }
  }

  it('sends in batches, and marks what the broker confirmed', async () => {
    const { scene, rows, marked } = await relaying(25, { relay: { batch: 10 } })
    await scene.clock.advance(100)
    expect(rows).toEqual([])
    expect(marked).toHaveLength(25)
    expect((await scene.mq.status('work')).stuck.ready).toBe(25)
  })

  it('keeps a row that could not be sent until it can, without holding the others up', async () => {
    let broken = true
    const { scene, rows, marked } = await relaying(3, {
      relay: { leaseMs: 2_000 },
      driver: (driver) =>
        altered(driver, {
          send: async (target, batch, signal) => {
            const sent = await driver.send(
              target,
              batch.filter(({ body }) => !broken || !body.toString().includes('"n":2')),
              signal,
            )
            const error = new IdemqError('BROKER_BUSY', 'try later')
            return batch.map(({ body }) =>
              broken && body.toString().includes('"n":2') ? { status: 'failed', error } : sent[0]!,
            )
          },
        }),
    })
    await scene.clock.advance(10_000)
    expect([rows.length, marked.length]).toEqual([1, 2])
    expect(scene.of('trouble')[0]).toMatchObject({ operation: 'relay the outbox', error: { code: 'BROKER_BUSY' } })
    broken = false
    await scene.clock.advance(10_000)
    expect([rows.length, marked.length]).toEqual([0, 3])
  })

  it('sends a row again under the same identity where the mark was lost; the inbox runs it once', async () => {
    const { scene, store, rows, commit } = await opened()
    const tx: Tx = { rows: [] }
    await scene.mq.outbox(store).enqueue(tx, job, { n: 1 })
    commit(tx)
    let marks = 0
    const forgetful = altered(store, {
      markSent: async (claims, signal) => {
        if (++marks === 1) throw new Error('connection reset')
        return store.markSent(claims, signal)
      },
    })
    const worker = scene.worker().handle(job, () => {})
    await worker.start()
    const relay = scene.mq.relay({ outbox: forgetful, leaseMs: 1_000 })
    await relay.start()
    await scene.clock.advance(30_000)
    await during(scene.clock, relay.stop())
    expect([marks, rows.length]).toEqual([2, 0])
    expect(scene.of('succeeded')).toHaveLength(1)
  })

  it('does not send early what was written with a delay', async () => {
    const { scene, store, commit } = await opened()
    const tx: Tx = { rows: [] }
    await scene.mq.outbox(store).enqueue(tx, job, { n: 1 }, { delayMs: 60_000 })
    commit(tx)
    await scene.clock.advance(50_000)
    const relay = scene.mq.relay({ outbox: store })
    await relay.start()
    const ranMs: number[] = []
    const worker = scene.worker().handle(job, () => {
      ranMs.push(scene.clock.monotonicMs())
    })
    await worker.start()
    await scene.clock.advance(60_000)
    await during(scene.clock, relay.stop())
    expect(ranMs).toEqual([60_000])
  })

  it('finds what is committed later, and stops after the round under way', async () => {
    const { scene, store, rows, commit, stop } = await relaying(0, { relay: { pollMs: 500 } })
    const tx: Tx = { rows: [] }
    await scene.mq.outbox(store).enqueue(tx, job, { n: 1 })
    commit(tx)
    await scene.clock.advance(500)
    expect(rows).toEqual([])
    await during(scene.clock, stop())
    commit({ rows: [{ ...tx.rows[0]!, copyId: 'later' }] })
    await scene.clock.advance(10_000)
    expect(rows).toHaveLength(1)
  })

  it('survives a store that fails', async () => {
    let down = true
    const { scene, store, rows, commit } = await opened()
    const tx: Tx = { rows: [] }
    await scene.mq.outbox(store).enqueue(tx, job, { n: 1 })
    commit(tx)
    const relay = scene.mq.relay({
      outbox: altered(store, {
        claim: (max, leaseMs, signal) =>
          down ? Promise.reject(new Error('locked')) : store.claim(max, leaseMs, signal),
      }),
    })
    await relay.start()
    await scene.clock.advance(5_000)
    expect(scene.of('trouble').length).toBeGreaterThan(1)
    down = false
    await scene.clock.advance(5_000)
    await during(scene.clock, relay.stop())
    expect(rows).toEqual([])
  })

  it.each([{ batch: 0 }, { leaseMs: 0 }, { pollMs: Number.NaN }, { batch: 1.5 }])(
    'refuses the option %j',
    async (options) => {
      const { scene, store } = await opened()
      expect(() => scene.mq.relay({ outbox: store, ...options })).toThrow(
        expect.objectContaining({ code: 'INVALID_OPTION' }),
      )
    },
  )
})
