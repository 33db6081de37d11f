import { expect, it } from 'vitest'
import { idSpan } from './entry-id.ts'

const spanOf = (...ids: string[]): [string, string] => idSpan(ids.map((id) => ({ id })))

it('compares ids as numbers, not as text', () => {
  expect(spanOf('1700000000000-10', '1700000000000-9', '1700000000001-0')).toEqual([
    '1700000000000-9',
    '1700000000001-0',
  ])
  expect(spanOf('10-0', '9-5')).toEqual(['9-5', '10-0'])
  expect(spanOf('5-1')).toEqual(['5-1', '5-1'])
})

it('spans nothing where there is nothing', () => {
  expect(spanOf()).toEqual(['+', '-'])
})
