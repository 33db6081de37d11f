import { expect, it } from 'vitest'
import { extendArguments, millisecondsOf, settleArguments } from './fence.ts'

const fence = (id: string, priorDeliveries = 0) => {
  return { id: Buffer.from(id), copyId: Buffer.from(`copy ${id}`), priorDeliveries }
}

it('reads the milliseconds of an id', () => {
  expect(millisecondsOf(Buffer.from('1767225600123-45'))).toBe(1_767_225_600_123)
  expect(millisecondsOf(Buffer.from('0-1'))).toBe(0)
})

it('names deliveries with the time they lie in, what is released, and counts only where they differ', () => {
  const deliveries = [fence('1000-9'), fence('999-10', 2), fence('1000-10', 1)]
  const ids = deliveries.map(({ id }) => id)
  const copyIds = deliveries.map(({ copyId }) => copyId)
  expect(settleArguments('c', deliveries, [3])).toEqual(['c', 999, 1_000, 3, ...ids, ...copyIds, 1, 3, 2, 3, 3, 2])
  expect(extendArguments('c', deliveries)).toEqual(['c', 999, 1_000, 3, ...ids, 2, 3, 3, 2])
})
