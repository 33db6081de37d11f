import { expect, test } from 'vitest'
import { badDay, conductOf } from './behaviour.ts'

test('conduct depends on seed, key and call alone', () => {
  const conducts = (seed: number): unknown[] => [1, 2, 3].map((call) => conductOf(badDay, seed, 'k', call))
  expect(conducts(1)).toEqual(conducts(1))
  expect(conducts(1)).not.toEqual(conducts(2))
})

test('a bad day is about as bad as it says', () => {
  const calls = 4_000
  let unavailable = 0
  let cut = 0
  for (let n = 0; n < calls; n++) {
    const conduct = conductOf(badDay, 1, `k${n}`, 1)
    if (conduct.unavailable) unavailable++
    if (conduct.cut) cut++
    expect(conduct.takesMs === badDay.slowMs || conduct.takesMs <= badDay.maxMs).toBe(true)
    expect(conduct.takesMs).toBeGreaterThanOrEqual(badDay.minMs)
  }
  expect(Math.abs(unavailable / calls - badDay.unavailableShare)).toBeLessThan(0.01)
  expect(Math.abs(cut / calls - badDay.cutShare)).toBeLessThan(0.01)
})
