import { expect, it } from 'vitest'
import { entryOf } from '../../test/entries.ts'
import { Lanes } from './lanes.ts'

it('lets everything without an ordering key pass', () => {
  const lanes = new Lanes()
  const entry = entryOf('k')
  expect([lanes.enter(entry), lanes.enter(entryOf('k')), lanes.leave(entry)]).toEqual([true, true, undefined])
})

it('admits one of a key at a time, in the order they came, and the holder again', () => {
  const lanes = new Lanes()
  const [a, b, c, other] = [entryOf('1', 'x'), entryOf('2', 'x'), entryOf('3', 'x'), entryOf('4', 'y')]
  expect([a, b, c, other, a].map((entry) => lanes.enter(entry))).toEqual([true, false, false, true, true])
  expect(lanes.leave(b)).toBeUndefined()
  expect(lanes.leave(a)).toBe(b)
  expect(lanes.enter(b)).toBe(true)
  expect(lanes.enter(a)).toBe(false)
  expect(lanes.leave(b)).toBe(c)
  expect(lanes.leave(c)).toBe(a)
  expect(lanes.leave(a)).toBeUndefined()
  expect(lanes.enter(b)).toBe(true)
})

it('hands back everyone who waits at a shutdown; who holds a lane still leaves it', () => {
  const lanes = new Lanes()
  const [a, b, c, d] = [entryOf('1', 'x'), entryOf('2', 'x'), entryOf('3', 'y'), entryOf('4', 'y')]
  for (const entry of [a, b, c, d]) lanes.enter(entry)
  expect(lanes.drain()).toEqual([b, d])
  expect(lanes.drain()).toEqual([])
  expect(lanes.leave(a)).toBeUndefined()
})
