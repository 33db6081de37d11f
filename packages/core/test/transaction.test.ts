/** `handleInTransaction` as core drives it: the store here commits to a list; the SQL adapters test the real thing. */
import { describe, expect, it } from 'vitest'
import { fixed, IdemqError, type InboxStore, sleep } from '../src/index.ts'
import { altered, numberedJob, openScene, type Scene } from './scene.ts'

/** A transaction: what is written becomes visible at its commit. */
type Tx = { readonly write: (line: string) => void }

interface Ledger {
  readonly committed: string[]
  /** What the next transaction does instead of committing. */
  next: 'commit' | 'cannot begin' | 'lost' | 'commit unknown' | 'fails at commit'
  transactions: number
  /** Transactions whose signal had aborted before the commit. */
  aborted: number
}

async function openLedger(): Promise<{ scene: Scene; ledger: Ledger; inbox: InboxStore<Tx> }> {
  const ledger: Ledger = { committed: [], next: 'commit', transactions: 0, aborted: 0 }
  let inbox!: InboxStore<Tx>
  const scene = await openScene({
    inbox: (memoryInbox) => {
      const store = memoryInbox as InboxStore<Tx>
      inbox = altered<InboxStore<Tx>>(store, {
        capabilities: { durability: 'memory', transactions: true, expiresItself: false },
        transact: async (effect, end, retentionMs, signal) => {
          ledger.transactions++
          const { next } = ledger
          ledger.next = 'commit'
          if (next === 'cannot begin') throw new IdemqError('BROKER_UNAVAILABLE', 'too many connections')
          const written: string[] = []
          const value = await effect({ write: (line) => written.push(line) })
          if (signal.aborted) ledger.aborted++
          signal.throwIfAborted()
          if (next === 'fails at commit') throw new IdemqError('BROKER_BUSY', 'deadlock')
          if (next === 'lost') return { status: 'lost' }
          const [held] = await store.end([end(value)], retentionMs, signal)
          if (held === 'lost') return { status: 'lost' }
          ledger.committed.push(...written)
          if (next === 'commit unknown') throw new IdemqError('COMMIT_UNKNOWN', 'connection lost at COMMIT')
          return { status: 'committed', value }
        },
      })
      return inbox as InboxStore
    },
  })
  return { scene, ledger, inbox }
}

describe('handleInTransaction', () => {
  it('commits the effect and the completion together; a duplicate runs nothing', async () => {
    const { scene, ledger, inbox } = await openLedger()
    const job = numberedJob({ idempotencyKey: () => 'key', storeResult: true })
    const worker = scene.mq.worker({ inbox }).handleInTransaction(job, ({ n }, _, tx) => {
      tx.write(`reserved ${n}`)
      return { reserved: n }
    })
    await worker.start()
    for (let i = 0; i < 3; i++) {
      await scene.mq.enqueue(job, { n: 1 })
      await scene.drain('work')
    }
    expect(ledger.committed).toEqual(['reserved 1'])
    expect(scene.of('succeeded')).toHaveLength(1)
    expect(scene.of('deduplicated').map(({ result }) => result)).toEqual([{ reserved: 1 }, { reserved: 1 }])
  })

  it('rolls back and retries what throws, the last time into the dead letters', async () => {
    const { scene, ledger, inbox } = await openLedger()
    const job = numberedJob()
    const worker = scene.mq.worker({ inbox }).handleInTransaction(job, (_, { attempt }, tx) => {
      tx.write(`attempt ${attempt}`)
      throw new Error('out of stock')
    })
    await scene.mq.enqueue(job, { n: 1 })
    await worker.start()
    await scene.drain('work')
    expect(ledger.committed).toEqual([])
    expect(ledger.transactions).toBe(3)
    expect(await scene.dead('work')).toMatchObject([{ reason: 'exhausted', message: 'out of stock' }])
  })

  it('rolls back a snooze, which uses no attempt, and hides no error thrown after it', async () => {
    const { scene, ledger, inbox } = await openLedger()
    const job = numberedJob({ retry: { maxAttempts: 1 } })
    const worker = scene.mq.worker({ inbox }).handleInTransaction(job, ({ n }, context, tx) => {
      tx.write(`start ${scene.of('started').length} of ${n}`)
      if (scene.of('started').length < 3) context.snooze(1_000)
      if (n === 2) throw new Error('after snooze')
    })
    await worker.start()
    await scene.mq.enqueue(job, { n: 1 })
    await scene.drain('work')
    expect(ledger.committed).toEqual(['start 3 of 1'])
    expect(scene.of('started').map(({ attempt }) => attempt)).toEqual([1, 1, 1])
    await scene.mq.enqueue(job, { n: 2 })
    await scene.drain('work')
    expect(await scene.dead('work')).toMatchObject([{ message: 'after snooze' }])
  })

  it('uses no attempt where no transaction could begin', async () => {
    const { scene, ledger, inbox } = await openLedger()
    const job = numberedJob({ retry: { maxAttempts: 1 } })
    ledger.next = 'cannot begin'
    const worker = scene.mq.worker({ inbox }).handleInTransaction(job, (_, { attempt }, tx) => tx.write(`${attempt}`))
    await scene.mq.enqueue(job, { n: 1 })
    await worker.start()
    await scene.drain('work')
    expect(ledger.committed).toEqual(['1'])
    expect(scene.of('trouble')[0]).toMatchObject({ error: { code: 'BROKER_UNAVAILABLE' } })
    expect(scene.of('failed')).toEqual([])
  })

  it('retries what failed at the commit', async () => {
    const { scene, ledger, inbox } = await openLedger()
    const job = numberedJob({ retry: { maxAttempts: 2, backoff: fixed(10) } })
    ledger.next = 'fails at commit'
    const worker = scene.mq.worker({ inbox }).handleInTransaction(job, (_, { attempt }, tx) => tx.write(`${attempt}`))
    await scene.mq.enqueue(job, { n: 1 })
    await worker.start()
    await scene.drain('work')
    expect(ledger.committed).toEqual(['2'])
  })

  it('leaves a commit of unknown outcome to the claim: it is not run again if it did commit', async () => {
    const { scene, ledger, inbox } = await openLedger()
    const job = numberedJob()
    ledger.next = 'commit unknown'
    const worker = scene.mq
      .worker({ inbox, claimLeaseMs: 3_000, leaseMs: 3_000 })
      .handleInTransaction(job, (_, { attempt }, tx) => tx.write(`${attempt}`))
    await scene.mq.enqueue(job, { n: 1 })
    await worker.start()
    await scene.drain('work')
    expect(ledger.committed).toEqual(['1'])
    expect(scene.of('deduplicated')).toHaveLength(1)
    expect(scene.of('failed')).toEqual([])
    expect(await scene.dead('work')).toEqual([])
  })

  it('records nothing under a claim that was lost', async () => {
    const { scene, ledger, inbox } = await openLedger()
    const job = numberedJob()
    ledger.next = 'lost'
    const worker = scene.mq
      .worker({ inbox, claimLeaseMs: 3_000, leaseMs: 3_000 })
      .handleInTransaction(job, (_, { attempt }, tx) => tx.write(`${attempt}`))
    await scene.mq.enqueue(job, { n: 1 })
    await worker.start()
    await scene.drain('work')
    expect(scene.of('claim_lost')).toHaveLength(1)
    expect(ledger.committed).toHaveLength(1)
    expect(scene.of('succeeded')).toHaveLength(1)
  })

  it('commits nothing of a handler that was given up on', async () => {
    const { scene, ledger, inbox } = await openLedger()
    const job = numberedJob({ timeoutMs: 1_000, retry: { maxAttempts: 2, backoff: fixed(10_000) } })
    const worker = scene.mq.worker({ inbox, graceMs: 1_000 }).handleInTransaction(job, async (_, { attempt }, tx) => {
      if (attempt === 1) await sleep(scene.clock, 5_000)
      tx.write(`attempt ${attempt}`)
    })
    await scene.mq.enqueue(job, { n: 1 })
    await worker.start()
    await scene.drain('work')
    expect(ledger.committed).toEqual(['attempt 2'])
    expect(ledger.aborted).toBe(1)
  })

  it('refuses a step: what the handler writes happens once as it is', async () => {
    const { scene, inbox } = await openLedger()
    const job = numberedJob({ retry: { maxAttempts: 1 } })
    let effects = 0
    const worker = scene.mq
      .worker({ inbox })
      .handleInTransaction(job, (_, context) => context.step('charge', () => ++effects))
    await scene.mq.enqueue(job, { n: 1 })
    await worker.start()
    await scene.drain('work')
    expect(effects).toBe(0)
    expect(scene.of('failed')[0]?.error).toMatchObject({ code: 'UNSUPPORTED' })
  })
})
