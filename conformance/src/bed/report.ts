import { performance } from 'node:perf_hooks'

/** One line a fact, on stderr so that a program's own output stays clean. */
export function report(line: string): void {
  process.stderr.write(`bed: ${line}\n`)
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
