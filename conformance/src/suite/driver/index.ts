/** The delivery suite: what every driver must do, and what core makes of it. */
import type { CaseGroup, Runner } from '../case.ts'
import { registerCases } from '../case.ts'
import { resolveScale } from '../wait.ts'
import { WorkerBench, workerGroups } from '../worker/index.ts'
import { DriverBench } from './bench.ts'
import { bodyCases } from './bodies.ts'
import { deadLetterCases } from './dead-letters.ts'
import { declareCases } from './declare.ts'
import { delayCases } from './delay.ts'
import { faultCases } from './faults.ts'
import { groupCases } from './groups.ts'
import type { DriverHarness } from './harness.ts'
import { leaseCases } from './lease.ts'
import { orderingCases } from './ordering.ts'
import { pushCases } from './push.ts'
import { receiveCases } from './receive.ts'
import { sendCases } from './send.ts'
import { settleCases } from './settle.ts'
import { statsCases } from './stats.ts'

export type { DriverHarness } from './harness.ts'

export const driverGroups: readonly CaseGroup<DriverHarness, DriverBench>[] = [
  declareCases,
  sendCases,
  receiveCases,
  settleCases,
  leaseCases,
  delayCases,
  bodyCases,
  orderingCases,
  groupCases,
  deadLetterCases,
  statsCases,
  pushCases,
  faultCases,
]

/**
 * Registers every case the manifest calls for, each on queues and connections of its own: they may run in any order
 * and at once. First the driver through its contract alone, then core's guarantees on it. Where a capability is false
 * the case that checks the refusal is there instead.
 */
export function driverSuite(runner: Runner, harness: DriverHarness): void {
  const limitMs = resolveScale(harness.scale).eventuallyMs * 4
  runner.describe(`${harness.name}: driver`, () => {
    registerCases(runner, driverGroups, harness, () => new DriverBench(harness), limitMs)
  })
  runner.describe(`${harness.name}: worker`, () => {
    registerCases(runner, workerGroups, harness, () => new WorkerBench(harness), limitMs)
  })
}
