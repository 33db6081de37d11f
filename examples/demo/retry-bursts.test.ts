import { expect, test } from 'vitest'
import { RetryBursts } from './retry-bursts.ts'

test('a trickle is no burst', () => {
  const bursts = new RetryBursts()
  for (let second = 0; second < 20; second++) expect(bursts.add(5, second * 1_000)).toBeUndefined()
})

test('a burst is told once, with what it cost, when it is over', () => {
  const bursts = new RetryBursts()
  bursts.add(2, 0)
  bursts.add(20, 1_000)
  bursts.add(1, 1_500)
  bursts.add(30, 2_000)
  expect(bursts.look(3_000)).toBeUndefined()
  expect(bursts.look(4_000)).toEqual({ retries: 51, durationMs: 2_000 })
  expect(bursts.look(5_000)).toBeUndefined()
})
