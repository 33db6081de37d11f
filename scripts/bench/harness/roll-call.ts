import { expectCount } from './measure.ts'
import { charges, countdown } from './workload.ts'

/** Sees to it that each job of a run is worked exactly once. */
export interface RollCall {
  /** Call it with the order of each job that is worked. */
  readonly present: (orderId: string) => void
  /** Resolves when as many were worked as there are, rejects if it stalls. */
  readonly complete: Promise<void>
  /**
   * Call it when nothing works any more, outside of what is measured.
   * @throws Error if a job was worked twice, or one that nobody sent
   */
  readonly check: () => void
}

/** For the jobs of `charges(from, jobs)`. */
export function rollCall(from: number, jobs: number): RollCall {
  const worked: string[] = []
  const { one, reached } = countdown('jobs worked', jobs)
  return {
    present(orderId) {
      worked.push(orderId)
      one()
    },
    complete: reached,
    check() {
      expectCount('jobs worked', worked.length, jobs)
      const known = new Set(charges(from, jobs).map(({ orderId }) => orderId))
      expectCount('different jobs worked', new Set(worked.filter((orderId) => known.has(orderId))).size, jobs)
    },
  }
}
