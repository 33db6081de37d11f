import { appendFileSync } from 'node:fs'
import { performance } from 'node:perf_hooks'

/**
 * One line a fact, on stderr so that a program's own output stays clean, and in the file that IDEMQ_BED_LOG names, where
 * a program finds those of all the processes it started.
 */
export function report(line: string): void {
  process.stderr.write(`bed: ${line}\n`)
  const { IDEMQ_BED_LOG: log } = process.env
  if (log) appendFileSync(log, `${line}\n`)
}

/** Runs one step of bringing the bed up and reports in one line what it was and how long it took. */
export async function step<T>(what: string, work: () => Promise<T>): Promise<T> {
  const startedAt = performance.now()
  try {
    const result = await work()
    report(`${what}: ${seconds(startedAt)}`)
    return result
  } catch (error) {
    report(`${what}: failed after ${seconds(startedAt)}`)
    throw error
  }
}

export function seconds(startedAt: number): string {
  return `${((performance.now() - startedAt) / 1000).toFixed(1)} s`
}
