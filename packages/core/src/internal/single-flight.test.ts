import { expect, it } from 'vitest'
import { entryOf } from '../../test/entries.ts'
import { SingleFlight } from './single-flight.ts'

it('has the first of a key lead and the others follow until it lands', () => {
  const flights = new SingleFlight(10)
  const [leader, second, third, other] = [entryOf('k'), entryOf('k'), entryOf('k'), entryOf('other')]
  expect([leader, second, third, other].map((entry) => flights.board(entry))).toEqual([
    'lead',
    'follow',
    'follow',
    'lead',
  ])
  expect(flights.land(second)).toEqual([])
  expect(flights.land(leader)).toEqual([second, third])
  expect(flights.land(leader)).toEqual([])
  expect(flights.board(third)).toBe('lead')
  expect(flights.land(third)).toEqual([])
  expect(flights.land(other)).toEqual([])
})

it('lets a bounded number wait over all keys, and gives their places back', () => {
  const flights = new SingleFlight(2)
  const leaders = [entryOf('a'), entryOf('b')]
  for (const leader of leaders) flights.board(leader)
  expect([entryOf('a'), entryOf('b'), entryOf('a'), entryOf('b')].map((entry) => flights.board(entry))).toEqual([
    'follow',
    'follow',
    'full',
    'full',
  ])
  expect(flights.land(leaders[0]!)).toHaveLength(1)
  expect(flights.board(entryOf('b'))).toBe('follow')
  expect(flights.board(entryOf('b'))).toBe('full')
  expect(flights.land(leaders[1]!)).toHaveLength(2)
})
