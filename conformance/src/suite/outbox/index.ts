/** The outbox suite: what every outbox must do, judged through its contract alone. */
import { type Runner, registerCases } from '../case.ts'
import { resolveScale } from '../wait.ts'
import { outboxGroups } from './cases.ts'
import { type AnyOutboxHarness, OutboxBench, type OutboxHarness } from './harness.ts'

export type { OutboxHarness, OutboxUnderTest } from './harness.ts'

/** Registers every case, each on an outbox of its own. */
export function outboxSuite<Tx>(runner: Runner, harness: OutboxHarness<Tx>): void {
  // The suite only hands a transaction from `transaction` to `insert`: what it is does not matter here.
  const opaque = harness as unknown as AnyOutboxHarness
  const limitMs = resolveScale(harness.scale).eventuallyMs * 4
  runner.describe(`${harness.name}: outbox`, () => {
    registerCases(runner, outboxGroups, opaque, () => new OutboxBench(opaque), limitMs)
  })
}
