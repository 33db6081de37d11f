import { memoryInbox } from '@idemq/memory'
import { describe, expect, it } from 'vitest'
import { altered } from '../../test/scene.ts'
import { ManualClock } from '../clock.ts'
import type { ClaimRequest, InboxStore } from '../store.ts'
import { type Claim, Claims } from './claims.ts'

const { signal } = new AbortController()
const leaseMs = 15_000
const request = (key: string, jobId = 'job'): ClaimRequest => ({
  scope: 'default/job',
  key,
  fingerprint: 'f',
  jobId,
  replay: 0,
  attempt: 1,
})

interface Held {
  clock: ManualClock
  inbox: InboxStore
  claims: Claims
  trouble: string[]
  hold: (key: string) => Promise<Claim & { lost: number }>
  /** What another job gets that asks for the key. */
  rival: (key: string) => Promise<string>
}

function newClaims(change: (inbox: InboxStore) => Partial<InboxStore> = () => ({})): Held {
  const clock = new ManualClock()
  const inbox = memoryInbox({ clock })
  const trouble: string[] = []
  const claims = new Claims({
    inbox: altered(inbox, change(inbox)),
    clock,
    leaseMs,
    retentionMs: 10 * leaseMs,
    onTrouble: (operation, { code }) => trouble.push(`${operation}: ${code}`),
  })
  return {
    clock,
    inbox,
    claims,
    trouble,
    async hold(key) {
      const askedAtMs = clock.monotonicMs()
      const [answer] = await claims.claim([request(key)])
      if (answer?.status !== 'claimed') throw new Error(`not claimed: ${answer?.status}`)
      const claim = Object.assign(claims.hold(request(key), answer, askedAtMs), { lost: 0 })
      claim.onLost = () => {
        claim.lost++
      }
      return claim
    },
    async rival(key) {
      const [answer] = await inbox.claim([request(key, 'rival')], { leaseMs: 1, retentionMs: leaseMs }, signal)
      return answer!.status
    },
  }
}

const released = { state: 'released', floor: 1, free: false } as const
const completed = { state: 'completed', floor: 1, free: false } as const

describe('renewal', () => {
  it('keeps a claim for as long as it is held', async () => {
    const { clock, hold, rival } = newClaims()
    const claim = await hold('k')
    await clock.advance(20 * leaseMs)
    expect(await rival('k')).toBe('busy')
    expect(claim.lost).toBe(0)
  })

  it('asks in one call for all that are due, every third of the lease', async () => {
    const sizes: number[] = []
    const { clock, hold } = newClaims((inbox) => ({
      renew: (batch, ms, s) => {
        sizes.push(batch.length)
        return inbox.renew(batch, ms, s)
      },
    }))
    await Promise.all(Array.from({ length: 20 }, (_, i) => hold(`k${i}`)))
    await clock.advance(leaseMs)
    expect(sizes).toEqual([20, 20, 20])
  })

  it('stops at the time it was given: a deaf handler does not keep its job for ever', async () => {
    const { clock, hold, rival } = newClaims()
    const claim = await hold('k')
    claim.renewUntilMs = leaseMs
    await clock.advance(3 * leaseMs)
    expect(await rival('k')).toBe('claimed')
    expect(claim.lost).toBe(0)
  })

  it('stops when the claim has ended or is forgotten, and leaves no timer behind', async () => {
    let calls = 0
    const { clock, claims, hold } = newClaims((inbox) => ({
      renew: (batch, ms, s) => {
        calls++
        return inbox.renew(batch, ms, s)
      },
    }))
    const [one, two] = [await hold('one'), await hold('two')]
    expect(await claims.end(one, completed, signal)).toBe(true)
    claims.forget(two)
    await clock.advance(10 * leaseMs)
    expect([calls, one.lost, two.lost]).toEqual([0, 0, 0])
    // And it begins anew for what comes later.
    await hold('three')
    await clock.advance(leaseMs)
    expect(calls).toBe(3)
  })

  it('does not multiply when everything ends while a renewal is under way', async () => {
    let calls = 0
    let during: (() => Promise<unknown>) | undefined
    const { clock, claims, hold } = newClaims((inbox) => ({
      renew: async (batch, ms, s) => {
        calls++
        await during?.()
        return inbox.renew(batch, ms, s)
      },
    }))
    let claim = await hold('k0')
    for (let round = 1; round <= 10; round++) {
      during = async () => {
        during = undefined
        await claims.end(claim, completed, signal)
        claim = await hold(`k${round}`)
      }
      await clock.advance(leaseMs)
    }
    calls = 0
    await clock.advance(10 * leaseMs)
    expect(calls).toBe(30)
  })

  it('tells who lost a claim, once', async () => {
    const { clock, claims, hold } = newClaims((inbox) => ({
      renew: (batch, ms, s) =>
        clock.monotonicMs() < leaseMs ? inbox.renew(batch, ms, s) : Promise.resolve(batch.map(() => 'lost' as const)),
    }))
    const claim = await hold('k')
    await clock.advance(2 * leaseMs)
    expect(claim.lost).toBe(1)
    expect(await claims.stillHeld(claim, signal)).toBe(false)
    await clock.advance(2 * leaseMs)
    expect(claim.lost).toBe(1)
  })

  it('counts a claim as lost once the store could not be asked for a whole lease, not before', async () => {
    const { clock, hold, trouble } = newClaims(() => ({ renew: () => Promise.reject(new Error('ECONNREFUSED')) }))
    const claim = await hold('k')
    await clock.advance(leaseMs - 1)
    expect(claim.lost).toBe(0)
    await clock.advance(leaseMs / 3)
    expect(claim.lost).toBe(1)
    expect(trouble[0]).toBe('renew claims: BROKER_UNAVAILABLE')
  })

  it('hears of a store that hangs within the lease', async () => {
    const { clock, hold, trouble } = newClaims(() => ({
      renew: (_batch, _ms, s) => new Promise((_, reject) => s.addEventListener('abort', () => reject(s.reason))),
    }))
    const claim = await hold('k')
    await clock.advance(leaseMs + (2 * leaseMs) / 3)
    expect(claim.lost).toBe(1)
    expect(trouble[0]).toBe('renew claims: TIMEOUT')
  })
})

describe('end', () => {
  it('is tried until the store answers', async () => {
    let failures = 3
    const { clock, claims, hold, rival, trouble } = newClaims((inbox) => ({
      end: (batch, ms, s) => (failures-- > 0 ? Promise.reject(new Error('deadlock')) : inbox.end(batch, ms, s)),
    }))
    const claim = await hold('k')
    const ending = claims.end(claim, completed, signal)
    await clock.advance(5_000)
    expect(await ending).toBe(true)
    expect(trouble).toHaveLength(3)
    expect(await rival('k')).toBe('completed')
  })

  it('whose answer was lost reads as lost: nobody guesses', async () => {
    let lost = true
    const { clock, claims, hold, rival } = newClaims((inbox) => ({
      end: async (batch, ms, s) => {
        const held = await inbox.end(batch, ms, s)
        if (!lost) return held
        lost = false
        throw new Error('connection reset')
      },
    }))
    const claim = await hold('k')
    const ending = claims.end(claim, completed, signal)
    await clock.advance(1_000)
    expect(await ending).toBe(false)
    expect(await rival('k')).toBe('completed')
  })

  it('of many claims is one call', async () => {
    const sizes: number[] = []
    const { claims, hold } = newClaims((inbox) => ({
      end: (batch, ms, s) => {
        sizes.push(batch.length)
        return inbox.end(batch, ms, s)
      },
    }))
    const held = await Promise.all(Array.from({ length: 10 }, (_, i) => hold(`k${i}`)))
    expect(await Promise.all(held.map((claim) => claims.end(claim, released, signal)))).not.toContain(false)
    expect(sizes).toEqual([10])
  })

  it('stops trying when the worker gives up', async () => {
    const abort = new AbortController()
    const { clock, claims, hold } = newClaims(() => ({ end: () => Promise.reject(new Error('down')) }))
    const ending = claims.end(await hold('k'), completed, abort.signal)
    ending.catch(() => {})
    await clock.advance(10_000)
    abort.abort()
    await expect(ending).rejects.toMatchObject({ code: 'BROKER_UNAVAILABLE' })
  })
})
