import { expect, it } from 'vitest'
import { randomOf, seed } from '../../test/seed.ts'
import { exponential, fixed } from './backoff.ts'

it('stays between its floor and the cap of the attempt, and reaches both', () => {
  const backoff = exponential({ baseMs: 1_000, maxMs: 60_000 })
  for (let attempt = 1; attempt <= 40; attempt++) {
    const cap = Math.min(60_000, 1_000 * 2 ** (attempt - 1))
    expect(backoff.delayMs(attempt, 0)).toBe(500)
    expect(backoff.delayMs(attempt, 1)).toBe(cap)
    expect(backoff.delayMs(attempt, 0.5)).toBe(Math.round(500 + (cap - 500) / 2))
  }
})

it('never leaves its bounds, whatever the options, the attempt and the dice', () => {
  const random = randomOf(seed)
  for (let run = 0; run < 20_000; run++) {
    const baseMs = 1 + random.below(10_000)
    const maxMs = baseMs + random.below(1_000_000)
    const minMs = random.next() * baseMs
    const backoff = exponential({ baseMs, maxMs, minMs, factor: 1 + random.next() * 9 })
    const delayMs = backoff.delayMs(1 + random.below(1_000_000_000), random.next())
    expect(Number.isInteger(delayMs)).toBe(true)
    expect(delayMs).toBeGreaterThanOrEqual(Math.floor(minMs))
    expect(delayMs).toBeLessThanOrEqual(maxMs)
  }
})

it('spreads evenly: full jitter leaves no two workers in step', () => {
  const random = randomOf(seed)
  const backoff = exponential({ baseMs: 10_000, maxMs: 10_000, minMs: 0 })
  const tenths = new Array<number>(10).fill(0)
  for (let run = 0; run < 10_000; run++) tenths[Math.min(9, Math.floor(backoff.delayMs(1, random.next()) / 1_000))]!++
  for (const count of tenths) expect(Math.abs(count - 1_000)).toBeLessThan(150)
})

it('tells its longest delay for start-up to judge', () => {
  expect(exponential({ baseMs: 10, maxMs: 777 }).maxMs).toBe(777)
  expect(fixed(1_234).maxMs).toBe(1_234)
  expect([1, 2, 99].map((attempt) => fixed(1_234).delayMs(attempt, Math.random()))).toEqual([1_234, 1_234, 1_234])
})
