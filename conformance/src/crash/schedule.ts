/** Hands the plans of a campaign out and counts what became of them. */
import type { CrashPoint } from '@idemq/core'
import { type Edge, type Plan, type Plans, type Role, randomInstant, roles } from './plans.ts'
import { seededRandom } from './random.ts'

export interface Schedule {
  /** The plan of the next child of `role`; undefined = it is to live. */
  next(role: Role): Plan | undefined
  /** `place`: where SIGKILL took the child; undefined if it did not. */
  ended(role: Role, plan: Plan, place: string | undefined): void
  kills(): number
  killsAt(place: CrashPoint | string): number
  /** All kills are done. */
  isDone(): boolean
}

/**
 * Exactly `kills` kills, however often a child dies elsewhere than planned: what a plan aims at stays on the list until
 * it was hit there, and a kill that happened otherwise takes the place of a random one.
 */
export function createSchedule(
  plans: Plans,
  kills: number,
  seed: number,
  options: {
    /** Also what aims at an edge stays until it was hit there. @default false */ readonly edgesToo?: boolean
  } = {},
): Schedule {
  const { edgesToo = false } = options
  const random = seededRandom(seed, 'more instants')
  const waiting: Record<Role, Plan[]> = {
    producer: [...plans.producer],
    worker: [...plans.worker],
    relay: [...plans.relay],
    operator: [...plans.operator],
  }
  const places = new Map<string, number>()
  let done = 0
  let lethal = 0
  const aimed = (): number => roles.reduce((sum, role) => sum + waiting[role].filter(isAimed).length, 0)
  const isAimed = (plan: Plan): boolean => aimOf(plan, edgesToo) !== undefined

  return {
    next(role) {
      const list = waiting[role]
      let plan = list.shift()
      // No room for chance while what must be hit would fill the rest.
      while (plan && !isAimed(plan) && done + lethal + aimed() >= kills) plan = list.shift()
      if (!plan && roles.every((any) => waiting[any].length === 0) && done + lethal < kills) {
        plan = randomInstant(random)
      }
      if (plan) lethal++
      return plan
    },
    ended(role, plan, place) {
      lethal--
      if (place !== undefined) {
        done++
        places.set(place, (places.get(place) ?? 0) + 1)
      }
      if (isAimed(plan) && aimOf(plan, edgesToo) !== place) waiting[role].push(plan)
    },
    kills: () => done,
    killsAt: (place) => places.get(place) ?? 0,
    isDone: () => done >= kills,
  }
}

/** The place that a plan must hit, if it must hit one. */
function aimOf(plan: Plan, edgesToo: boolean): CrashPoint | Edge | undefined {
  if (plan.kind === 'point') return plan.point
  return plan.kind === 'edge' && edgesToo ? plan.edge : undefined
}
