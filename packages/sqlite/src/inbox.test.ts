import { type ClaimRequest, type Clock, ManualClock, type SqlTransaction } from '@idemq/core'
import { describe, expect, it, onTestFinished } from 'vitest'
import { tempFile } from '../test/temp-file.ts'
import { sqlite, sqliteInbox } from './index.ts'

const { signal } = new AbortController()
const times = { leaseMs: 15_000, retentionMs: 60_000 }

function request(key: string, change: Partial<ClaimRequest> = {}): ClaimRequest {
  return { scope: 'default/charge', key, fingerprint: 'f', jobId: `job of ${key}`, replay: 0, attempt: 1, ...change }
}

async function open(path = tempFile(), clock: Clock = new ManualClock()) {
  const inbox = sqliteInbox({ path, clock })
  onTestFinished(() => inbox.close())
  await inbox.prepare('create', signal)
  return inbox
}

const plainEnd = { floor: 1, free: false, holdMs: 0 } as const

async function claim(inbox: Awaited<ReturnType<typeof open>>, key: string) {
  const [answer] = await inbox.claim([request(key)], times, signal)
  if (answer?.status !== 'claimed') throw new Error(`expected a claim of ${key}, got ${answer?.status}`)
  return { scope: 'default/charge', key, token: answer.token }
}

it('gives no token twice, not even after everything was purged and the file reopened', async () => {
  const path = tempFile()
  const clock = new ManualClock()
  const first = await open(path, clock)
  const before = await claim(first, 'a')
  await clock.advance(times.retentionMs)
  expect(await first.purge(10, signal)).toBe(1)
  await first.close()
  const after = await claim(await open(path, clock), 'a')
  expect(after.token).toBeGreaterThan(before.token as number)
})

it('purges all that expired, also behind rows that last', async () => {
  const clock = new ManualClock()
  const inbox = await open(tempFile(), clock)
  const claimMany = async (name: string, count: number, retentionMs: number): Promise<void> => {
    for (let from = 0; from < count; from += 1_000) {
      const batch = Array.from({ length: 1_000 }, (_, i) => request(`${name} ${from + i}`))
      await inbox.claim(batch, { leaseMs: 1_000, retentionMs }, signal)
    }
  }
  // More rows that last than one purge looks at.
  await claimMany('lasting', 25_000, 1_000_000_000)
  await claimMany('short', 3_000, 10_000)
  await claimMany('lasting too', 12_000, 1_000_000_000)
  await clock.advance(10_000)
  let purged = 0
  for (let round = 0; round < 10; round++) purged += await inbox.purge(2_000, signal)
  expect(purged).toBe(3_000)
  expect((await inbox.claim([request('lasting 0', { fingerprint: 'other' })], times, signal))[0]).toEqual({
    status: 'mismatch',
  })
})

it('holds nobody back from an ended key, and a release no longer than was said, when the wall clock steps back', async () => {
  const clock = new ManualClock()
  const wall = { stepMs: 0 }
  const stepping = {
    now: () => clock.now() + wall.stepMs,
    monotonicMs: () => clock.monotonicMs(),
    schedule: clock.schedule.bind(clock),
  }
  const path = tempFile()
  const inbox = await open(path, stepping)
  const refs = { completed: await claim(inbox, 'completed'), failed: await claim(inbox, 'failed') }
  const ends = (['completed', 'failed'] as const).map((state) => ({ ...refs[state], state, ...plainEnd }))
  const released = { ...(await claim(inbox, 'released')), state: 'released', ...plainEnd, holdMs: 500 } as const
  expect(await inbox.end([...ends, released], times.retentionMs, signal)).toEqual(['held', 'held', 'held'])
  const ask = async (asked: typeof inbox) => {
    const requests = ['completed', 'failed', 'released'].map((key) => request(key, { jobId: 'another' }))
    return (await asked.claim(requests, times, signal)).map(({ status }) => status)
  }
  wall.stepMs = -3_600_000
  await clock.advance(499)
  const [first, , third] = await ask(inbox)
  expect([first, third]).toEqual(['completed', 'busy'])
  await clock.advance(1)
  expect((await ask(inbox))[2]).toBe('claimed')
})

describe('transact', () => {
  async function shop() {
    const inbox = await open()
    const end = (ref: Awaited<ReturnType<typeof claim>>) => () => {
      return { ...ref, state: 'completed', floor: 1, free: false, holdMs: 0, result: '"done"' } as const
    }
    const transact = (ref: Awaited<ReturnType<typeof claim>>, effect: (tx: SqlTransaction) => Promise<unknown>) => {
      return inbox.transact!(effect, end(ref), times.retentionMs, signal)
    }
    await transact(await claim(inbox, 'set up'), (tx) =>
      tx.query('CREATE TABLE stock (sku TEXT PRIMARY KEY, n INTEGER)'),
    )
    return { inbox, transact }
  }

  it('commits the effect with the end of the claim, twenty waiting at once', async () => {
    const { inbox, transact } = await shop()
    const refs = await Promise.all(Array.from({ length: 20 }, (_, i) => claim(inbox, `order ${i}`)))
    const results = await Promise.all(
      refs.map((ref, i) => transact(ref, (tx) => tx.query('INSERT INTO stock VALUES ($1, $2)', [ref.key, i]))),
    )
    expect(results.every(({ status }) => status === 'committed')).toBe(true)
    const [again] = await inbox.claim([request('order 7')], times, signal)
    expect(again).toEqual({ status: 'completed', result: '"done"' })
  })

  it('rolls the effect back where the claim is lost, and leaves the claim where the effect threw', async () => {
    const { inbox, transact } = await shop()
    const ref = await claim(inbox, 'order')
    const insert = (tx: SqlTransaction) => tx.query(`INSERT INTO stock VALUES ('a', 1)`)
    expect(await transact({ ...ref, token: 1 }, insert)).toEqual({ status: 'lost' })
    await expect(transact(ref, (tx) => tx.query('INSERT INTO nowhere VALUES (1)'))).rejects.toThrow('no such table')
    // Had the lost one left its row, this would violate the primary key.
    expect(await transact(ref, insert)).toMatchObject({ status: 'committed' })
    expect(await inbox.renew([ref], 1_000, signal)).toEqual(['lost'])
  })
})

it('refuses what would wait for the transaction it is in, at once, and takes outbox rows through tx', async () => {
  const { driver, inbox, outbox } = sqlite(tempFile())
  onTestFinished(() => driver.close())
  onTestFinished(() => inbox.close())
  onTestFinished(() => outbox.close())
  const queue = { name: 'orders', group: 'default' }
  await driver.declare(queue, 'create', signal)
  const row = { copyId: 'a', jobId: 'a', partitionKey: 'a', ordered: false, body: new Uint8Array([1]) }
  const ref = await claim(inbox, 'order')
  const refused: unknown[] = []
  const effect = async (tx: SqlTransaction) => {
    const inner = [
      () => driver.send(queue, [{ ...row, delayMs: 0 }], signal),
      () => inbox.renew([ref], 1_000, signal),
      () =>
        inbox.transact!(
          async () => {},
          () => ({ ...ref, state: 'completed', ...plainEnd }),
          1_000,
          signal,
        ),
    ]
    for (const call of inner) await call().catch((error: unknown) => refused.push(error))
    await outbox.insert(tx, [{ ...row, queue: 'orders' }])
  }
  const end = () => ({ ...ref, state: 'completed', ...plainEnd }) as const
  const transaction = inbox.transact!(effect, end, times.retentionMs, signal)
  // From outside the effect, meanwhile: it waits its turn.
  const outside = driver.send(queue, [{ ...row, copyId: 'outside', delayMs: 0 }], signal)
  expect(await transaction).toMatchObject({ status: 'committed' })
  expect(refused).toHaveLength(3)
  for (const error of refused) {
    expect(error).toMatchObject({ code: 'UNSUPPORTED', message: expect.stringContaining('outbox.enqueue(tx, …)') })
  }
  expect(await outside).toEqual([{ status: 'stored' }])
  expect(await driver.stats(queue, signal)).toMatchObject({ ready: 1 })
  expect(await outbox.stats(signal)).toMatchObject({ pending: 1 })
})

it('lets code that a transaction started write once that has ended', async () => {
  const { driver, inbox } = sqlite(tempFile())
  onTestFinished(() => driver.close())
  onTestFinished(() => inbox.close())
  await driver.declare({ name: 'orders', group: 'default' }, 'create', signal)
  const ref = await claim(inbox, 'order')
  const ended = Promise.withResolvers<void>()
  let later: Promise<unknown> | undefined
  const effect = async () => {
    later = ended.promise.then(() => inbox.renew([ref], 1_000, signal))
  }
  await inbox.transact!(effect, () => ({ ...ref, state: 'completed', ...plainEnd }), 1_000, signal)
  ended.resolve()
  expect(await later).toEqual(['lost'])
})

it('shares one queue of writes with the driver and outbox of the same adapter', async () => {
  const { driver, inbox, outbox } = sqlite(tempFile())
  await driver.declare({ name: 'orders', group: 'default' }, 'create', signal)
  await driver.close()
  await inbox.prepare('check', signal)
  await inbox.claim([request('a')], times, signal)
  await inbox.close()
  expect(await outbox.stats(signal)).toEqual({ pending: 0 })
  await outbox.close()
  await expect(inbox.claim([request('b')], times, signal)).rejects.toMatchObject({ code: 'CLOSED' })
})
