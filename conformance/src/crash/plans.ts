/** How each process of a run is to die: chosen before the run, from its seed alone. */
import { type Adapter, type CrashPoint, crashPoints } from '@idemq/core'
import { type Random, seededRandom } from './random.ts'

export const roles = ['producer', 'worker', 'relay', 'operator'] as const
export type Role = (typeof roles)[number]

/** Instants around the calls to a driver or store that core has no point for; the tap knows them. */
export const edges = [
  'send.before',
  'send.after',
  'settle.before',
  'settle.after',
  'claim.before',
  'end.before',
  'transact.before_end',
  'outbox.before_mark',
  'outbox.after_mark',
] as const
export type Edge = (typeof edges)[number]

export type Plan =
  /** At the `hit`-th time it reaches a crash point of core. */
  | { readonly kind: 'point'; readonly point: CrashPoint; readonly hit: number }
  /** At the `hit`-th time it reaches an edge. */
  | { readonly kind: 'edge'; readonly edge: Edge; readonly hit: number }
  /** From outside, `afterMs` after it was started or said that it was ready, wherever that finds it. */
  | Instant
  /** Stopped at a point until its leases are over, continued, and killed `afterMs` later. */
  | { readonly kind: 'freeze'; readonly point: CrashPoint; readonly hit: number; readonly afterMs: number }

export interface Instant {
  readonly kind: 'instant'
  readonly from: 'start' | 'ready'
  readonly afterMs: number
}

/** The process that reaches each point. */
export const roleOfPoint: Readonly<Record<CrashPoint, Role>> = {
  'enqueue.before_send': 'producer',
  'enqueue.after_send': 'producer',
  'relay.after_send': 'relay',
  'worker.after_receive': 'worker',
  'worker.after_claim': 'worker',
  'worker.in_handler': 'worker',
  'worker.after_effect': 'worker',
  'worker.after_memo': 'worker',
  'worker.after_complete': 'worker',
  'worker.after_retry_copy': 'worker',
  'worker.after_release': 'worker',
  'worker.after_dead_copy': 'worker',
  'worker.after_fail': 'worker',
  'replay.after_copy': 'operator',
}

const roleOfEdge: Readonly<Record<Edge, readonly Role[]>> = {
  'send.before': ['producer', 'worker', 'relay', 'operator'],
  'send.after': ['producer', 'worker', 'relay', 'operator'],
  'settle.before': ['worker'],
  'settle.after': ['worker'],
  'claim.before': ['worker'],
  'end.before': ['worker'],
  'transact.before_end': ['worker'],
  'outbox.before_mark': ['relay'],
  'outbox.after_mark': ['relay'],
}

/** Points that happen once in a while per process: asking for the third hit would only wait. */
const rarePoints: ReadonlySet<CrashPoint> = new Set<CrashPoint>([
  'relay.after_send',
  'worker.after_dead_copy',
  'worker.after_fail',
  'replay.after_copy',
])

/** What an adapter can do, as far as it decides which points exist. */
export type Reach = Pick<Adapter, 'inbox' | 'outbox'>

/** The points that can occur: those of the inbox need an inbox, the relay's needs an outbox. */
export function applicablePoints({ inbox, outbox }: Reach): CrashPoint[] {
  const needsInbox: readonly CrashPoint[] = [
    'worker.after_claim',
    'worker.after_effect',
    'worker.after_memo',
    'worker.after_complete',
    'worker.after_release',
    'worker.after_fail',
  ]
  return (Object.keys(crashPoints) as CrashPoint[]).filter((point) => {
    if (point === 'relay.after_send') return outbox !== undefined
    return inbox !== undefined || !needsInbox.includes(point)
  })
}

/** How often each applicable point must be hit in a run of `kills`. */
export function requiredHits(kills: number): number {
  return Math.max(1, Math.ceil(kills * 0.03))
}

/** A shape of plan for one role, to be filled in with random numbers. */
export type AimTemplate =
  | {
      readonly role: Role
      readonly kind: 'point'
      readonly point: CrashPoint
      readonly hits?: readonly [number, number]
    }
  | { readonly role: Role; readonly kind: 'edge'; readonly edge: Edge; readonly hits?: readonly [number, number] }
  | { readonly role: Role; readonly kind: 'instant' }
  | { readonly role: Role; readonly kind: 'freeze'; readonly point: CrashPoint }

export type Plans = Readonly<Record<Role, readonly Plan[]>>

/** `kills` plans, all by templates: what a negative control aims at. */
export function aimedPlans(kills: number, seed: number, aim: readonly AimTemplate[]): Plans {
  const random = seededRandom(seed, 'plans')
  return byRole(Array.from({ length: kills }, (_, i) => fill(aim[i % aim.length]!, random)))
}

/**
 * `kills` plans: every applicable point {@link requiredHits} times, and the rest at edges, random instants and, once
 * in a while, a worker stopped past its leases.
 */
export function campaignPlans(kills: number, seed: number, reach: Reach): Plans {
  const random = seededRandom(seed, 'plans')
  const points = applicablePoints(reach)
  const templates: AimTemplate[] = points.flatMap((point) =>
    Array.from({ length: requiredHits(kills) }, () => ({ role: roleOfPoint[point], kind: 'point', point }) as const),
  )
  const otherRoles = roles.filter((role) => role !== 'relay' || reach.outbox)
  while (templates.length < kills) templates.push(randomTemplate(random, otherRoles, reach))
  return byRole(random.shuffle(templates.map((template) => fill(template, random))))
}

function randomTemplate(random: Random, present: readonly Role[], reach: Reach): AimTemplate {
  // Half of what is left to chance hits workers: they hold the most state.
  const role = random.next() < 0.5 ? 'worker' : random.pick(present)
  const ticket = random.next()
  if (role === 'worker' && ticket < 0.04) return { role, kind: 'freeze', point: 'worker.in_handler' }
  if (ticket > 0.8) {
    const open = edges.filter((edge) => roleOfEdge[edge].includes(role) && edgeExists(edge, reach))
    return { role, kind: 'edge', edge: random.pick(open) }
  }
  return { role, kind: 'instant' }
}

function edgeExists(edge: Edge, { inbox, outbox }: Reach): boolean {
  if (edge === 'outbox.before_mark' || edge === 'outbox.after_mark') return outbox !== undefined
  if (edge === 'transact.before_end') return inbox?.capabilities.transactions === true
  return inbox !== undefined || (edge !== 'claim.before' && edge !== 'end.before')
}

interface PlannedDeath {
  readonly role: Role
  readonly plan: Plan
}

function fill(template: AimTemplate, random: Random): PlannedDeath {
  const { role } = template
  const hit = ([min, max]: readonly [number, number]): number => random.integer(min, max)
  switch (template.kind) {
    case 'point': {
      const { point, hits = rarePoints.has(point) ? [1, 1] : [1, 5] } = template
      return { role, plan: { kind: 'point', point, hit: hit(hits) } }
    }
    case 'edge':
      return { role, plan: { kind: 'edge', edge: template.edge, hit: hit(template.hits ?? [1, 3]) } }
    case 'instant':
      return { role, plan: randomInstant(random) }
    case 'freeze':
      return {
        role,
        plan: { kind: 'freeze', point: template.point, hit: hit([1, 3]), afterMs: random.integer(200, 600) },
      }
  }
}

/** One in ten dies while it starts, the others at work. */
export function randomInstant(random: Random): Instant {
  const from = random.next() < 0.1 ? 'start' : 'ready'
  return { kind: 'instant', from, afterMs: random.integer(0, from === 'start' ? 200 : 500) }
}

function byRole(deaths: readonly PlannedDeath[]): Plans {
  const of = (role: Role): Plan[] => deaths.filter((death) => death.role === role).map(({ plan }) => plan)
  return { producer: of('producer'), worker: of('worker'), relay: of('relay'), operator: of('operator') }
}
