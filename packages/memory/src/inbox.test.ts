import { type ClaimAnswer, type ClaimEnd, type ClaimRequest, type Held, ManualClock, type Token } from '@idemq/core'
import { beforeEach, describe, expect, it } from 'vitest'
import { memoryInbox } from './inbox.ts'

const { signal } = new AbortController()
const times = { leaseMs: 15_000, retentionMs: 3_600_000 }
const base: ClaimRequest = { scope: 'default/charge', key: 'k', fingerprint: 'f', jobId: 'j1', replay: 0, attempt: 1 }
let clock: ManualClock
let inbox: ReturnType<typeof memoryInbox>

beforeEach(() => {
  clock = new ManualClock()
  inbox = memoryInbox({ clock })
})

async function claim(change: Partial<ClaimRequest> = {}): Promise<ClaimAnswer> {
  return (await inbox.claim([{ ...base, ...change }], times, signal))[0]!
}

async function claimed(
  change: Partial<ClaimRequest> = {},
): Promise<{ token: Token; attempt: number; crashed: boolean }> {
  const answer = await claim(change)
  if (answer.status !== 'claimed') throw new Error(`expected a claim, got ${answer.status}`)
  return answer
}

async function end(
  token: Token,
  state: ClaimEnd['state'],
  { floor = 1, free = false, holdMs = 0, result }: Partial<ClaimEnd> = {},
): Promise<Held | undefined> {
  const { scope, key } = base
  return (
    await inbox.end(
      [{ scope, key, token, state, floor, free, holdMs, ...(result && { result }) }],
      times.retentionMs,
      signal,
    )
  )[0]
}

describe('claim', () => {
  it('lets one in; others wait for the rest of its lease, and take over when it ends', async () => {
    const { token } = await claimed()
    await clock.advance(5_000)
    expect(await claim({ jobId: 'j2' })).toEqual({ status: 'busy', retryAfterMs: 10_000 })
    await clock.advance(10_000)
    expect(await claim({ jobId: 'j2' })).toMatchObject({ status: 'claimed', attempt: 2 })
    expect(await end(token, 'completed')).toBe('lost')
    expect(await inbox.renew([{ ...base, token }], 1_000, signal)).toEqual(['lost'])
  })

  it('answers a completed key with its result, or mismatch for another payload', async () => {
    const { token } = await claimed()
    expect(await end(token, 'completed', { result: '{"ok":1}' })).toBe('held')
    expect(await end(token, 'completed')).toBe('lost')
    expect(await claim({ jobId: 'j2' })).toEqual({ status: 'completed', result: '{"ok":1}' })
    expect(await claim({ fingerprint: 'other' })).toEqual({ status: 'mismatch' })
  })

  it('drops copies below the floor and counts on, whichever job claims', async () => {
    await end((await claimed()).token, 'released', { floor: 2 })
    expect(await claim()).toEqual({ status: 'stale' })
    expect(await claimed({ jobId: 'j2' })).toMatchObject({ attempt: 2 })
    expect(await claim({ attempt: 2 })).toMatchObject({ status: 'busy' })
  })

  it('gives a start back when freed', async () => {
    await end((await claimed()).token, 'released', { free: true })
    expect(await claimed()).toMatchObject({ attempt: 1 })
  })

  it('starts a new series after a failure for good: by another job or a replay, not by stale copies', async () => {
    await end((await claimed({ attempt: 5 })).token, 'failed', { floor: 5 })
    expect(await claim({ attempt: 5 })).toEqual({ status: 'stale' })
    expect(await claimed({ replay: 1 })).toMatchObject({ attempt: 1 })
    expect(await claim({ attempt: 6 })).toEqual({ status: 'stale' })
  })

  it('forgets an expired row wholly, as if it had been purged', async () => {
    await end((await claimed({ attempt: 4 })).token, 'completed')
    await clock.advance(times.retentionMs)
    expect(await claimed({ jobId: 'j2', fingerprint: 'other' })).toMatchObject({ attempt: 1 })
  })

  it('says whether the start before crashed', async () => {
    const { token, crashed } = await claimed()
    expect(crashed).toBe(false)
    await end(token, 'released')
    expect(await claimed()).toMatchObject({ crashed: false })
    await clock.advance(times.leaseMs)
    expect(await claimed({ jobId: 'j2' })).toMatchObject({ crashed: true })
  })

  it('holds other jobs back after a release, not the job itself, and no longer than was said', async () => {
    await end((await claimed()).token, 'released', { floor: 2, holdMs: 400 })
    expect(await claim({ jobId: 'j2' })).toEqual({ status: 'busy', retryAfterMs: 400 })
    await end((await claimed({ attempt: 2 })).token, 'released', { floor: 3, holdMs: 400 })
    await clock.advance(399)
    expect(await claim({ jobId: 'j2' })).toMatchObject({ status: 'busy' })
    await clock.advance(1)
    expect(await claim({ jobId: 'j2' })).toMatchObject({ status: 'claimed' })
  })

  it('never repeats a token', async () => {
    const first = await claimed()
    await end(first.token, 'released')
    const second = await claimed()
    expect(second.token).not.toBe(first.token)
    expect(await end(first.token, 'completed')).toBe('lost')
  })
})

describe('steps', () => {
  it('survive retries and replays, and go when another payload takes over', async () => {
    const { token } = await claimed()
    const record = { ...base, token, step: 'charge', result: '"ch_1"' }
    expect(await inbox.record([record, { ...record, step: '__proto__' }], signal)).toEqual(['held', 'held'])
    await end(token, 'failed')
    const replayed = await claim({ replay: 1 })
    expect(Object.entries((replayed as { steps: object }).steps)).toEqual([
      ['charge', '"ch_1"'],
      ['__proto__', '"ch_1"'],
    ])
    expect(await inbox.record([record], signal)).toEqual(['lost'])
    await end((replayed as { token: Token }).token, 'failed')
    expect(await claim({ jobId: 'j2', fingerprint: 'other' })).not.toHaveProperty('steps')
  })
})

it('purges what is past its retention, at most max', async () => {
  for (const key of ['a', 'b', 'c']) await inbox.claim([{ ...base, key }], { leaseMs: 10, retentionMs: 100 }, signal)
  await claimed()
  expect(await inbox.purge(10, signal)).toBe(0)
  await clock.advance(100)
  expect(await inbox.purge(2, signal)).toBe(2)
  expect(await inbox.purge(2, signal)).toBe(1)
})
