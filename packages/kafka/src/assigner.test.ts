import { expect, it } from 'vitest'
import { type Assignment, assign, type Member } from './assigner.ts'

const topics = ['orders', 'orders-retry']
const counts = (partitions: number): Map<string, number> => new Map(topics.map((topic) => [topic, partitions]))
const member = (id: string, units: readonly number[] = [], change: Partial<Member> = {}): Member => ({
  id,
  topics,
  generation: 1,
  isLeaving: false,
  claims: units.map((unit) => ({ unit, busy: 0 })),
  ...change,
})
const unitsOf = (assignments: Map<string, Assignment>, id: string): readonly number[] =>
  [...(assignments.get(id)?.partitions.orders ?? [])].sort((a, b) => a - b)

it('gives everything to somebody once, evenly, and all partitions of a unit to one member', () => {
  for (let members = 1; members <= 9; members++) {
    const all = Array.from({ length: members }, (_, i) => member(`m${i}`))
    const assignments = assign(all, counts(6))
    const given = [...assignments.values()].flatMap(({ partitions }) => partitions.orders ?? [])
    expect(given.sort()).toEqual([0, 1, 2, 3, 4, 5])
    const sizes = all.map(({ id }) => unitsOf(assignments, id).length)
    expect(Math.max(...sizes) - Math.min(...sizes)).toBeLessThanOrEqual(1)
    for (const { partitions } of assignments.values()) expect(partitions['orders-retry']).toEqual(partitions.orders)
  }
})

it('moves no more than it must, and says what was kept', () => {
  const assignments = assign([member('a', [0, 1, 2, 3]), member('b', [4, 5, 6, 7]), member('c')], counts(8))
  expect(unitsOf(assignments, 'c')).toHaveLength(2)
  for (const id of ['a', 'b']) expect(assignments.get(id)!.kept.toSorted()).toEqual(unitsOf(assignments, id))
  expect(assignments.get('c')!.kept).toEqual([])
})

it('moves what is idle rather than what is at work', () => {
  const busy = member('a', [], {
    claims: [0, 1, 2, 3].map((unit) => ({ unit, busy: unit === 0 || unit === 2 ? 5 : 0 })),
  })
  const assignments = assign([busy, member('b')], counts(4))
  expect(unitsOf(assignments, 'a')).toEqual([0, 2])
})

it('believes who got a unit last', () => {
  const stale = member('a', [0, 1])
  const fresh = member('b', [0], { generation: 2 })
  const assignments = assign([stale, fresh], counts(2))
  expect([unitsOf(assignments, 'a'), unitsOf(assignments, 'b')]).toEqual([[1], [0]])
})

it('gives what is left behind by a member to the others', () => {
  const assignments = assign([member('a', [0, 1])], counts(4))
  expect(unitsOf(assignments, 'a')).toEqual([0, 1, 2, 3])
  expect(assignments.get('a')!.kept).toEqual([0, 1])
})

it('leaves no partition unread where members know different topics', () => {
  const old = member('old', [0, 1], { topics: ['orders'] })
  const assignments = assign([old, member('new')], counts(4))
  const retries = [...assignments.values()].flatMap(({ partitions }) => partitions['orders-retry'] ?? [])
  expect(retries.sort()).toEqual([0, 1, 2, 3])
  expect(assignments.get('old')!.partitions['orders-retry']).toBeUndefined()
})

it('forgets units that no longer exist', () => {
  expect(unitsOf(assign([member('a', [7])], counts(2)), 'a')).toEqual([0, 1])
})

it('leaves a member that stops only what it is at work on, and gives it nothing', () => {
  const claims = [0, 1, 2].map((unit) => ({ unit, busy: unit === 1 ? 3 : 0 }))
  const leaving = member('a', [], { claims, isLeaving: true })
  const both = assign([leaving, member('b', [3])], counts(4))
  expect([unitsOf(both, 'a'), unitsOf(both, 'b')]).toEqual([[1], [0, 2, 3]])
  expect(both.get('a')!.kept).toEqual([1])
  expect(unitsOf(assign([leaving], counts(4)), 'a')).toEqual([1])
})
