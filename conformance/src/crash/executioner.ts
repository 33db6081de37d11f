/** Ends its own process where the plan says, and says so first. */
import { subscribe } from 'node:diagnostics_channel'
import { type CrashPointMessage, crashPointChannel } from '@idemq/core'
import type { StatementLog } from '../oracle/statements.ts'
import type { Edge, Plan } from './plans.ts'

export interface Executioner {
  onEdge(edge: Edge, jobIds: readonly string[]): void
  die(where: string, jobIds: readonly string[]): void
}

export function createExecutioner(plan: Plan | undefined, log: StatementLog): Executioner {
  // The signal takes this process before kill() returns: nothing after these calls runs, or runs before SIGCONT.
  const die = (where: string, jobIds: readonly string[]): void => {
    log.write({ type: 'dying', where, jobIds })
    process.kill(process.pid, 'SIGKILL')
  }
  let hits = 0
  if (plan?.kind === 'point' || plan?.kind === 'freeze') {
    subscribe(crashPointChannel, (message) => {
      const { point, jobIds } = message as CrashPointMessage
      if (point !== plan.point || ++hits !== plan.hit) return
      if (plan.kind === 'point') return die(point, jobIds)
      log.write({ type: 'freezing', where: point, jobIds })
      process.kill(process.pid, 'SIGSTOP')
    })
  }
  return {
    die,
    onEdge(edge, jobIds) {
      if (plan?.kind === 'edge' && edge === plan.edge && ++hits === plan.hit) die(edge, jobIds)
    },
  }
}
