import { expect, it } from 'vitest'
import { controls } from './controls.ts'

it('has ten controls and more, each with one line that says which part is wrong', () => {
  expect(Object.keys(controls).length).toBeGreaterThanOrEqual(10)
  for (const [name, { wrong, aim }] of Object.entries(controls)) {
    expect(name).toMatch(/^[a-z]+(-[a-z]+)*$/)
    expect(wrong).toMatch(/^(broker|driver|worker|inbox|outbox): [^\n]+$/)
    expect(aim.length).toBeGreaterThan(0)
  }
})
