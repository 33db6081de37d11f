import { expect, it } from 'vitest'
import { rungFor, rungs } from './delays.ts'

it('never waits longer than asked for', () => {
  for (const delayMs of [0, 1, 999, 1_000, 1_001, 59_999, 60_000, 3_600_000, 1e10]) {
    expect(rungFor(delayMs).waitMs).toBeLessThanOrEqual(delayMs)
  }
  expect(rungFor(59_999).suffix).toBe('-10s')
  expect(rungFor(1e10)).toBe(rungs.at(-1))
})
