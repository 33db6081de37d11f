import { DatabaseSync } from 'node:sqlite'
import type { OutboxRow } from '@idemq/core'
import { expect, it, onTestFinished } from 'vitest'
import { tempFile } from '../test/temp-file.ts'
import { sqlite } from './index.ts'

const { signal } = new AbortController()

function row(copyId: string): OutboxRow {
  return { queue: 'orders', copyId, jobId: copyId, partitionKey: 'k', ordered: true, body: Buffer.from(copyId) }
}

async function open(path = tempFile()) {
  const { inbox, outbox } = sqlite({ path, pollMs: 5 })
  onTestFinished(async () => {
    await inbox.close()
    await outbox.close()
  })
  await outbox.prepare('create', signal)
  const claim = async (key: string) => {
    const request = { scope: 's', key, fingerprint: 'f', jobId: key, replay: 0, attempt: 1 }
    const [answer] = await inbox.claim([request], { leaseMs: 10_000, retentionMs: 10_000 }, signal)
    const { token } = answer as { token: number }
    return { scope: 's', key, token, state: 'completed', floor: 1, free: false, holdMs: 0 } as const
  }
  return { path, inbox, outbox, claim }
}

it('takes rows in the transaction of a handler, and wakes the relay at its commit', async () => {
  const { inbox, outbox, claim } = await open()
  const end = await claim('a')
  const woken = outbox.wait(30_000, signal).then(() => outbox.claim(10, 1_000, signal))
  await inbox.transact!(
    (tx) => outbox.insert(tx, [row('1'), { ...row('2'), notBeforeMs: 99 }]),
    () => end,
    10_000,
    signal,
  )
  const claims = await woken
  expect(claims.map((claim) => claim.row)).toEqual([
    { ...row('1'), body: new Uint8Array(Buffer.from('1')) },
    { ...row('2'), body: new Uint8Array(Buffer.from('2')), notBeforeMs: 99 },
  ])
  expect(await outbox.claim(10, 1_000, signal)).toEqual([])
  await outbox.markSent(claims, signal)
  expect(await outbox.stats(signal)).toEqual({ pending: 0 })
})

it('takes rows in a transaction of your own connection, and forgets them with it', async () => {
  const { path, outbox } = await open()
  const mine = new DatabaseSync(path)
  onTestFinished(() => mine.close())
  mine.exec('BEGIN IMMEDIATE')
  await outbox.insert(mine, [row('gone')])
  mine.exec('ROLLBACK; BEGIN IMMEDIATE')
  await outbox.insert(mine, [row('kept')])
  expect(await outbox.claim(10, 1_000, signal)).toEqual([])
  mine.exec('COMMIT')
  await outbox.wait(30_000, signal)
  expect((await outbox.claim(10, 1_000, signal)).map(({ row: { copyId } }) => copyId)).toEqual(['kept'])
})

it('says so when your connection is on another file', async () => {
  const { outbox } = await open()
  const elsewhere = new DatabaseSync(':memory:')
  onTestFinished(() => elsewhere.close())
  await expect(outbox.insert(elsewhere, [row('a')])).rejects.toMatchObject({ code: 'QUEUE_MISSING' })
})

it('gives up waiting when aborted', async () => {
  const { outbox } = await open()
  const giveUp = new AbortController()
  const waiting = outbox.wait(60_000, giveUp.signal)
  giveUp.abort()
  await waiting
})
