import { randomUUID } from 'node:crypto'
import type { ClaimRequest } from '@idemq/core'
import { describe, expect, it } from 'vitest'
import { signal, testServer } from '../test/server.ts'
import { rowKey } from './keys.ts'

const times = { leaseMs: 30_000, retentionMs: 60_000 }

function request(change: Partial<ClaimRequest> = {}): ClaimRequest {
  const key = randomUUID()
  return { scope: 'default/job', key, fingerprint: 'f', jobId: key, replay: 0, attempt: 1, ...change }
}

describe.each(['redis', 'valkey'] as const)('on %s', async (name) => {
  const { admin, open } = await testServer(name)

  it('lets Redis delete a row and its steps when their retention ends, counted from the last change', async () => {
    const { inbox } = open()
    const copy = request()
    const row = rowKey('idemq', copy.scope, copy.key)
    const steps = row.replace(/r$/, 's')
    const [claim] = await inbox.claim([copy], times, signal)
    if (claim?.status !== 'claimed') throw new Error(`answered ${claim?.status}`)
    const ref = { scope: copy.scope, key: copy.key, token: claim.token }
    await inbox.record([{ ...ref, step: 'a', result: '1' }], signal)
    for (const key of [row, steps]) expect(await admin.pttl(key)).toBeGreaterThan(59_000)
    await inbox.end([{ ...ref, state: 'released', floor: 1, free: false, holdMs: 0 }], 100, signal)
    for (const key of [row, steps]) expect(await admin.pttl(key)).toBeLessThanOrEqual(101)
    await expect.poll(() => admin.exists(row, steps)).toBe(0)
    expect(await inbox.purge(100, signal)).toBe(0)
  })

  it('keeps a row for as long as its lease is renewed, beyond the retention', async () => {
    const { inbox } = open()
    const copy = request()
    const [claim] = await inbox.claim([copy], { leaseMs: 10_000, retentionMs: 100 }, signal)
    if (claim?.status !== 'claimed') throw new Error(`answered ${claim?.status}`)
    await inbox.renew([{ scope: copy.scope, key: copy.key, token: claim.token }], 20_000, signal)
    expect(await admin.pttl(rowKey('idemq', copy.scope, copy.key))).toBeGreaterThan(19_000)
  })

  it('drops the steps of a completed key', async () => {
    const { inbox } = open()
    const copy = request()
    const [claim] = await inbox.claim([copy], times, signal)
    if (claim?.status !== 'claimed') throw new Error(`answered ${claim?.status}`)
    const ref = { scope: copy.scope, key: copy.key, token: claim.token }
    await inbox.record([{ ...ref, step: 'a', result: '1' }], signal)
    await inbox.end([{ ...ref, state: 'completed', floor: 1, free: false, holdMs: 0, result: '2' }], 60_000, signal)
    expect(await admin.exists(rowKey('idemq', copy.scope, copy.key).replace(/r$/, 's'))).toBe(0)
    expect(await inbox.claim([copy], times, signal)).toEqual([{ status: 'completed', result: '2' }])
  })

  it('answers a batch over several scopes in its order', async () => {
    const { inbox } = open()
    const batch = ['a', 'b', 'a', 'c', 'b'].map((scope) => request({ scope }))
    const held = batch[2]!
    await inbox.claim([held], times, signal)
    const answers = await inbox.claim(batch, times, signal)
    expect(answers.map(({ status }) => status)).toEqual(['claimed', 'claimed', 'busy', 'claimed', 'claimed'])
  })

  it('never gives a token twice, not even after the server lost its data', async () => {
    const { inbox } = open()
    const copy = request()
    const [first] = await inbox.claim([copy], times, signal)
    await admin.flushall()
    const [second] = await inbox.claim([copy], times, signal)
    if (first?.status !== 'claimed' || second?.status !== 'claimed') throw new Error('not claimed')
    const end = { scope: copy.scope, key: copy.key, state: 'completed', floor: 1, free: false, holdMs: 0 } as const
    expect(await inbox.end([{ ...end, token: first.token }], 60_000, signal)).toEqual(['lost'])
    expect(await inbox.end([{ ...end, token: second.token }], 60_000, signal)).toEqual(['held'])
  })
})
