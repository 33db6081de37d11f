/** What some work cost for each job of it. */
export interface Cost {
  readonly jobsPerSecond: number
  /** User and system time of the whole process, garbage collection and compilation included. */
  readonly cpuUsPerJob: number
}

export async function measure(jobs: number, work: () => Promise<void> | void): Promise<Cost> {
  const startedAtMs = performance.now()
  const cpu = process.cpuUsage()
  await work()
  const { user, system } = process.cpuUsage(cpu)
  const elapsedMs = performance.now() - startedAtMs
  return { jobsPerSecond: (jobs * 1_000) / elapsedMs, cpuUsPerJob: (user + system) / jobs }
}

/** The given quantile, from 0 to 1, of at least one value: the nearest rank. */
export function quantile(values: readonly number[], q: number): number {
  const sorted = values.toSorted((a, b) => a - b)
  return sorted[Math.max(0, Math.ceil(q * sorted.length) - 1)]!
}

/** Of an odd number of values: an actual one of them. */
export function median(values: readonly number[]): number {
  return quantile(values, 0.5)
}

/** @throws Error naming what is wrong: a benchmark of work that was not done measures nothing */
export function expectCount(what: string, actual: number, expected: number): void {
  if (actual !== expected) throw new Error(`${what}: ${actual}, expected ${expected}`)
}
