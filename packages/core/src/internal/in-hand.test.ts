import { expect, it } from 'vitest'
import { InHand } from './in-hand.ts'

const members = (count: number): { place: number; id: number }[] =>
  Array.from({ length: count }, (_, id) => ({ place: -1, id }))

it('has what was added and not deleted, once', () => {
  const [a, b, c] = members(3) as [
    { place: number; id: number },
    { place: number; id: number },
    { place: number; id: number },
  ]
  const inHand = new InHand<{ place: number; id: number }>()
  for (const member of [a, b, c, a]) inHand.add(member)
  expect(inHand.size).toBe(3)
  expect([inHand.delete(a), inHand.delete(a)]).toEqual([true, false])
  expect([a, b, c].map((member) => inHand.has(member))).toEqual([false, true, true])
  inHand.add(a)
  expect(new Set(inHand.all())).toEqual(new Set([a, b, c]))
})

it('agrees with a Set over many moves', () => {
  const all = members(50)
  const inHand = new InHand<{ place: number; id: number }>()
  const model = new Set<{ place: number; id: number }>()
  let seed = 1
  for (let move = 0; move < 5_000; move++) {
    seed = (seed * 48_271) % 2_147_483_647
    const member = all[seed % all.length]!
    if (seed % 3 === 0) expect(inHand.delete(member)).toBe(model.delete(member))
    else {
      inHand.add(member)
      model.add(member)
    }
    expect(inHand.size).toBe(model.size)
  }
  expect(new Set(inHand.all())).toEqual(model)
})

it('lets all() be changed while it is walked', () => {
  const inHand = new InHand<{ place: number; id: number }>()
  for (const member of members(10)) inHand.add(member)
  for (const member of inHand.all()) inHand.delete(member)
  expect(inHand.size).toBe(0)
})
