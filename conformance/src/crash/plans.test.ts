import { crashPoints, noInbox } from '@idemq/core'
import { expect, it } from 'vitest'
import { aimedPlans, applicablePoints, campaignPlans, type Plan, requiredHits, roleOfPoint, roles } from './plans.ts'
import { seededRandom } from './random.ts'
import { createSchedule } from './schedule.ts'

const transactional = {
  ...noInbox(),
  capabilities: { durability: 'sync', transactions: true, expiresItself: false } as const,
}
const outbox = {} as never
const everything = { inbox: transactional, outbox }

it('needs 3 % of the kills at each point, and one at least', () => {
  expect([1, 33, 40, 60, 1000].map(requiredHits)).toEqual([1, 1, 2, 2, 30])
})

it('computes the points that can occur from what the adapter has', () => {
  expect(applicablePoints(everything)).toEqual(Object.keys(crashPoints))
  expect(applicablePoints({ inbox: transactional })).not.toContain('relay.after_send')
  expect(applicablePoints({})).toEqual([
    'enqueue.before_send',
    'enqueue.after_send',
    'worker.after_receive',
    'worker.in_handler',
    'worker.after_retry_copy',
    'worker.after_dead_copy',
    'replay.after_copy',
  ])
})

it('plans exactly the kills asked for, each point often enough, in the process that reaches it', () => {
  const plans = campaignPlans(1_000, 1, everything)
  expect(roles.reduce((sum, role) => sum + plans[role].length, 0)).toBe(1_000)
  for (const point of applicablePoints(everything)) {
    const aimed = plans[roleOfPoint[point]].filter((plan) => plan.kind === 'point' && plan.point === point)
    expect(aimed).toHaveLength(30)
  }
  const kinds = Object.values(plans).flatMap((list: readonly Plan[]) => list.map(({ kind }) => kind))
  expect(new Set(kinds)).toEqual(new Set(['point', 'edge', 'instant', 'freeze']))
})

it('repeats its choices for a seed, and only for that', () => {
  const aim = [{ role: 'worker', kind: 'instant' }] as const
  expect(campaignPlans(100, 7, everything)).toEqual(campaignPlans(100, 7, everything))
  expect(campaignPlans(100, 7, everything)).not.toEqual(campaignPlans(100, 8, everything))
  expect(aimedPlans(10, 7, aim)).toEqual(aimedPlans(10, 7, aim))
})

it('kills as often as asked, however often children die elsewhere than planned', () => {
  const random = seededRandom(20_260_101, 'deaths')
  const kills = 200
  const schedule = createSchedule(campaignPlans(kills, 3, everything), kills, 3)
  const living: { role: (typeof roles)[number]; plan: Plan }[] = []
  while (!schedule.isDone()) {
    const role = random.pick(roles)
    const plan = schedule.next(role)
    if (plan) living.push({ role, plan })
    if (living.length < 7 && plan) continue
    const [child] = living.splice(random.integer(0, living.length - 1), 1)
    if (!child) continue
    // What is aimed at a point dies there or lives; the rest die anywhere, or of a job that kills its process.
    const ends =
      child.plan.kind === 'point' ? [child.plan.point, undefined] : ['instant', 'crasher', 'worker.in_handler']
    schedule.ended(child.role, child.plan, random.pick(ends))
  }
  expect(schedule.kills()).toBe(kills)
  for (const point of applicablePoints(everything)) {
    expect(schedule.killsAt(point)).toBeGreaterThanOrEqual(requiredHits(kills))
  }
})

it('insists on edges where it is told to, as it does on points', () => {
  const plan = { kind: 'edge', edge: 'send.after', hit: 1 } as const
  const plans = { producer: [], worker: [], relay: [plan], operator: [] }
  const relaxed = createSchedule(plans, 1, 1)
  relaxed.ended('relay', relaxed.next('relay')!, undefined)
  expect(relaxed.next('relay')).toMatchObject({ kind: 'instant' })

  const strict = createSchedule(plans, 1, 1, { edgesToo: true })
  strict.ended('relay', strict.next('relay')!, undefined)
  expect(strict.next('relay')).toEqual(plan)
  strict.ended('relay', plan, 'send.after')
  expect({ done: strict.isDone(), hits: strict.killsAt('send.after') }).toEqual({ done: true, hits: 1 })
})
