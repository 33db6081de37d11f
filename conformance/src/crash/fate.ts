/** Sees one child through to its end. */
import type { Child, ChildExit } from './child-process.ts'
import type { Plan } from './plans.ts'
import type { Run } from './run.ts'

/** How long a child may take to reach its point before its plan is kept for another. */
const aimPatienceMs = 6_000

/** Sees a child through its plan. Resolves when it has exited, by the plan or otherwise. */
export async function execute(run: Run, child: Child, plan: Plan, over: AbortSignal): Promise<ChildExit> {
  const timers = new Set<NodeJS.Timeout>()
  const later = (delayMs: number, act: () => void): void => void timers.add(setTimeout(act, delayMs))
  let unsubscribe = (): void => {}
  if (plan.kind === 'instant' && plan.from === 'start') {
    later(plan.afterMs, child.kill)
  } else if (plan.kind === 'instant') {
    unsubscribe = run.onStatement(({ type, by }) => {
      if (type === 'ready' && by === child.config.name) later(plan.afterMs, child.kill)
    })
  } else if (plan.kind === 'freeze') {
    later(aimPatienceMs, child.kill)
    unsubscribe = run.onStatement(({ type, by }) => {
      if (type !== 'freezing' || by !== child.config.name) return
      for (const timer of timers) clearTimeout(timer)
      later(freezeMs(run), () => {
        child.resume()
        later(plan.afterMs, child.kill)
      })
    })
  } else {
    later(aimPatienceMs, () => void child.stop())
  }
  const stop = (): void => {
    // A frozen process hears nothing.
    child.resume()
    void child.stop()
  }
  over.addEventListener('abort', stop)
  const exit = await child.exited
  over.removeEventListener('abort', stop)
  unsubscribe()
  for (const timer of timers) clearTimeout(timer)
  return exit
}

/** Long enough for a lease to end, the delivery to come back, find the claim held for a last lease, and come again. */
function freezeMs({ leaseMs }: Run): number {
  return 3 * leaseMs
}

/** Sees a child without a plan to the end of the campaign. */
export async function untilOver(child: Child, over: AbortSignal): Promise<ChildExit> {
  const stop = (): void => void child.stop()
  if (over.aborted) stop()
  over.addEventListener('abort', stop)
  const exit = await child.exited
  over.removeEventListener('abort', stop)
  return exit
}
