/** The guarantees of core on the adapter under test. */
import type { CaseGroup } from '../case.ts'
import type { DriverHarness } from '../driver/harness.ts'
import { badInputCases } from './bad-input.ts'
import type { WorkerBench } from './bench.ts'
import { crashCases } from './crashes.ts'
import { dedupeCases } from './dedupe.ts'
import { failingCases } from './failing.ts'
import { refusalCases } from './refusals.ts'
import { replayCases } from './replay.ts'
import { runningCases } from './running.ts'
import { timingCases } from './timing.ts'

export { WorkerBench } from './bench.ts'

export const workerGroups: readonly CaseGroup<DriverHarness, WorkerBench>[] = [
  runningCases,
  failingCases,
  crashCases,
  replayCases,
  dedupeCases,
  badInputCases,
  timingCases,
  refusalCases,
]
