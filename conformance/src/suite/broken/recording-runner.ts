/** A runner that only collects: what it is given can then be run, and says which cases failed. */
import type { Runner } from '../case.ts'

export interface Recorded {
  readonly group: string
  readonly name: string
  readonly body: () => Promise<void>
}

export interface CaseFailure {
  readonly name: string
  readonly error: unknown
}

/** Every case that `register` registers. */
export function record(register: (runner: Runner) => void): Recorded[] {
  const cases: Recorded[] = []
  let group = ''
  register({
    describe(name, body) {
      const outer = group
      group = name
      body()
      group = outer
    },
    it: (name, body) => cases.push({ group, name, body }),
  })
  return cases
}

/** Runs the cases, some at once, and returns those that failed. */
export async function failuresOf(cases: readonly Recorded[], atOnce = 8): Promise<CaseFailure[]> {
  const failures: CaseFailure[] = []
  const waiting = [...cases]
  const lane = async (): Promise<void> => {
    for (let next = waiting.shift(); next; next = waiting.shift()) {
      try {
        await next.body()
      } catch (error) {
        failures.push({ name: next.name, error })
      }
    }
  }
  await Promise.all(Array.from({ length: atOnce }, lane))
  return failures
}
