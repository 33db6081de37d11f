import { expect, it } from 'vitest'
import { ManualClock } from '../clock.ts'
import { type RetryBudget, retryBudget } from './budget.ts'

/** How many withdrawals it grants in a row. */
function granted(budget: RetryBudget, clock: ManualClock): number {
  let count = 0
  while (count < 100_000 && budget.withdraw(clock)) count++
  return count
}

it('has ten seconds of its floor in hand at first, and refills at that rate to no more', async () => {
  const clock = new ManualClock()
  const budget = retryBudget({ ratio: 0, minPerSecond: 5 })
  expect(granted(budget, clock)).toBe(50)
  expect(granted(budget, clock)).toBe(0)
  await clock.advance(2_000)
  expect(granted(budget, clock)).toBe(10)
  await clock.advance(3_600_000)
  expect(granted(budget, clock)).toBe(50)
})

it('earns its ratio of the traffic on top', async () => {
  const clock = new ManualClock()
  const budget = retryBudget({ ratio: 0.2, minPerSecond: 0 })
  expect(granted(budget, clock)).toBe(0)
  for (let i = 0; i < 1_000; i++) budget.deposit(clock)
  const earned = granted(budget, clock)
  expect(earned).toBeGreaterThanOrEqual(199)
  expect(earned).toBeLessThanOrEqual(200)
})

it('lets what was earned fade: an old rush pays for no new storm', async () => {
  const clock = new ManualClock()
  const budget = retryBudget({ ratio: 1, minPerSecond: 0 })
  for (let i = 0; i < 1_000; i++) budget.deposit(clock)
  await clock.advance(100_000)
  expect(granted(budget, clock)).toBe(0)
})

it('holds its ratio over time: with steady traffic a fifth of it may be retries', async () => {
  const clock = new ManualClock()
  const budget = retryBudget({ ratio: 0.2, minPerSecond: 0 })
  let retries = 0
  for (let second = 0; second < 200; second++) {
    for (let i = 0; i < 100; i++) budget.deposit(clock)
    retries += granted(budget, clock)
    await clock.advance(1_000)
  }
  expect(retries / (200 * 100)).toBeGreaterThan(0.19)
  expect(retries / (200 * 100)).toBeLessThanOrEqual(0.2)
})

it('of nothing at all grants nothing', () => {
  const clock = new ManualClock()
  expect(granted(retryBudget({ ratio: 0, minPerSecond: 0 }), clock)).toBe(0)
})
