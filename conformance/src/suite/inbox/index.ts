/** The inbox suite: what every inbox must do, judged through its contract alone. */
import { type CaseGroup, type Runner, registerCases } from '../case.ts'
import { resolveScale } from '../wait.ts'
import { batchCases } from './batches.ts'
import { countingCases } from './counting.ts'
import { crashCases } from './crashes.ts'
import { fencingCases } from './fencing.ts'
import { type AnyStoreHarness, StoreBench, type StoreHarness } from './harness.ts'
import { holdCases } from './holds.ts'
import { setUpCases } from './set-up.ts'
import { stepCases } from './steps.ts'
import { transactCases } from './transact.ts'
import { truthTableCases } from './truth-table.ts'

export type { StoreHarness, TestEffects } from './harness.ts'

export const storeGroups: readonly CaseGroup<AnyStoreHarness, StoreBench>[] = [
  setUpCases,
  truthTableCases,
  countingCases,
  crashCases,
  holdCases,
  fencingCases,
  batchCases,
  stepCases,
  transactCases,
]

/** Registers every case the manifest calls for, each on keys and connections of its own. */
export function storeSuite<Tx>(runner: Runner, harness: StoreHarness<Tx>): void {
  // The suite only hands a transaction from `transact` to `effects.write`: what it is does not matter here.
  const opaque = harness as unknown as AnyStoreHarness
  runner.describe(`${harness.name}: inbox`, () => {
    registerCases(
      runner,
      storeGroups,
      opaque,
      () => new StoreBench(opaque),
      resolveScale(harness.scale).eventuallyMs * 4,
    )
  })
}
