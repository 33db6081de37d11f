import { expect, it } from 'vitest'
import { seededRandom } from './random.ts'

it('repeats a stream for its seed and labels, and gives each its own', () => {
  const stream = (...labels: (string | number)[]): number[] => {
    const random = seededRandom(1, ...labels)
    return Array.from({ length: 5 }, () => random.next())
  }
  expect(stream('a', 1)).toEqual(stream('a', 1))
  expect(stream('a', 1)).not.toEqual(stream('a', 2))
})

it('spreads evenly over a range, both ends included', () => {
  const random = seededRandom(2, 'range')
  const counts = [0, 0, 0, 0]
  for (let i = 0; i < 40_000; i++) counts[random.integer(0, 3)]!++
  for (const count of counts) expect(Math.abs(count - 10_000)).toBeLessThan(500)
})

it('shuffles without losing anything', () => {
  const list = Array.from({ length: 100 }, (_, i) => i)
  const shuffled = seededRandom(3, 'list').shuffle(list)
  expect(shuffled).not.toEqual(list)
  expect(shuffled.toSorted((a, b) => a - b)).toEqual(list)
})
