/**
 * The part of a campaign in which things go wrong: processes are kept alive and killed by plan, and where asked for the
 * server is killed and the network spoilt meanwhile.
 */
import type { Child } from './child-process.ts'
import { execute, untilOver } from './fate.ts'
import { type Fault, spoilNetwork } from './network.ts'
import { type Plans, type Role, roles } from './plans.ts'
import type { Run } from './run.ts'
import { createSchedule, type Schedule } from './schedule.ts'
import { killServer } from './server-kills.ts'

export interface TurmoilOptions {
  readonly run: Run
  readonly plans: Plans
  readonly kills: number
  readonly seed: number
  /** Children of each role at once. */
  readonly staff: Readonly<Record<Role, number>>
  /** What is aimed at an edge must hit it, as what is aimed at a point must. */
  readonly edgesToo: boolean
  readonly brokerKills: number
  /** What goes wrong with the network. */
  readonly net: readonly Fault[]
  readonly onProgress: (kills: number) => void
}

export interface Turmoil {
  readonly schedule: Schedule
  readonly brokerKills: number
  readonly faults: ReadonlyMap<Fault, number>
  /** What kept it from being as it was planned. */
  readonly failures: readonly string[]
}

const timePerKillMs = 1_500
const timePerBrokerKillMs = 6_000
const leastTimeMs = 60_000
const maxFailures = 10
const pollMs = 20

/** Resolves when all kills are done, each disturbance has happened, or time is up; nothing is wrong any more then. */
export async function turmoil(options: TurmoilOptions): Promise<Turmoil> {
  const { run, plans, kills, seed, staff, edgesToo, brokerKills, net, onProgress } = options
  const schedule = createSchedule(plans, kills, seed, { edgesToo })
  const failures: string[] = []
  const over = new AbortController()
  const { signal } = over
  // One child that ends by itself leaves its compiled code to all that follow; the killed cannot.
  await run.start('operator', { once: true, url: run.directUrl }).exited

  const killed = schedule.kills
  const serverKills = killServer({ server: run.server, count: brokerKills, seed, kills, killed, signal })
  const network = spoilNetwork(run.network, net, seed, signal)
  const disturbances = [serverKills, network]
  const ended = disturbances.map(({ ended }) =>
    ended.catch((error: Error) => {
      failures.push(error.message)
      over.abort()
    }),
  )
  const deadlineMs =
    performance.now() +
    leastTimeMs +
    kills * timePerKillMs * (net.length > 0 ? 2 : 1) +
    brokerKills * timePerBrokerKillMs
  const isOver = (): boolean =>
    (schedule.isDone() && disturbances.every((each) => each.isDone())) ||
    performance.now() > deadlineMs ||
    failures.length >= maxFailures
  const watch = setInterval(() => isOver() && over.abort(), pollMs)

  const places = new Map<string, string>()
  const unsubscribe = run.onStatement((statement) => {
    if (statement.type === 'dying') places.set(statement.by, statement.where)
  })
  /** Where a child said it would die, or that it was killed from outside. */
  const placeOfDeath = (child: Child): string => {
    run.poll()
    return places.get(child.config.name) ?? 'instant'
  }
  const keepAlive = async (role: Role): Promise<void> => {
    while (!signal.aborted) {
      if (serverKills.isBehind()) {
        await new Promise((resolve) => setTimeout(resolve, pollMs))
        continue
      }
      const plan = schedule.next(role)
      const child = run.start(role, plan ? { plan } : {})
      const exit = plan ? await execute(run, child, plan, signal) : await untilOver(child, signal)
      if (plan) schedule.ended(role, plan, exit.killed ? placeOfDeath(child) : undefined)
      if (!exit.killed && !exit.clean) {
        failures.push(`${child.config.name} ended with code ${exit.code}: ${exit.stderr.trim()}`)
      }
      if (exit.killed) onProgress(schedule.kills())
      if (isOver()) over.abort()
    }
  }
  const present = roles.filter((role) => role !== 'relay' || run.adapter.outbox)
  await Promise.all(present.flatMap((role) => Array.from({ length: staff[role] }, () => keepAlive(role))))
  await Promise.all(ended)
  clearInterval(watch)
  unsubscribe()

  if (!schedule.isDone()) failures.push(`only ${schedule.kills()} of ${kills} kills, or too few at some point, in time`)
  if (!serverKills.isDone()) failures.push(`only ${serverKills.done()} of ${brokerKills} kills of the server in time`)
  if (!network.isDone()) failures.push('not every fault of the network in time')
  return { schedule, brokerKills: serverKills.done(), faults: network.counts, failures }
}
