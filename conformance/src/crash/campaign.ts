/**
 * A crash campaign: producers, workers, a relay and an operator are kept alive and killed by plan, then everything
 * drains undisturbed, then the oracle judges.
 */
import type { CrashPoint } from '@idemq/core'
import type { Aftermath, Counts } from '../oracle/verdict.ts'
import type { Broker } from './brokers.ts'
import type { Child, ChildExit } from './child-process.ts'
import { type Control, controls } from './controls.ts'
import { drain } from './drain.ts'
import { defaultMix } from './jobs.ts'
import { aimedPlans, applicablePoints, campaignPlans, type Plan, type Role, requiredHits, roles } from './plans.ts'
import { openRun, type Run } from './run.ts'
import { createSchedule } from './schedule.ts'

export interface CampaignOptions {
  readonly broker: Broker
  readonly kills: number
  /** Repeats a campaign's choices: who dies where, and what is enqueued. */
  readonly seed: number
  /** Name of a negative control to run with. */
  readonly control?: string
  /** With `control`: its aim and mix, but the real parts, which must pass. @default false */
  readonly harmless?: boolean
  readonly keep?: boolean
  readonly onProgress?: (kills: number) => void
}

export interface CampaignResult {
  readonly broker: string
  readonly seed: number
  readonly kills: number
  readonly counts: Counts
  /** One line for each thing counted, and for what kept the campaign from being one. */
  readonly findings: readonly string[]
  readonly aftermath: readonly Aftermath[]
  /** Kills at each point that can occur on this broker. */
  readonly pointKills: ReadonlyMap<CrashPoint, number>
  readonly requiredHits: number
  /** Nothing was counted, nothing failed to run or drain, and every point was hit often enough. */
  readonly ok: boolean
  /** Where the log and files are, if they were kept. */
  readonly directory: string
}

/** Children of each role at once. */
const staff: Readonly<Record<Role, number>> = { producer: 2, worker: 3, relay: 1, operator: 1 }
/** A frozen worker does nothing for seconds: more of them, so that others take over meanwhile. */
const frozenStaff: Readonly<Record<Role, number>> = { ...staff, worker: 8 }
/** How long a child may take to reach its point before its plan is kept for another. */
const aimPatienceMs = 6_000
const timePerKillMs = 1_500
const leastTimeMs = 60_000
const maxFailures = 10
const campaignDrainMs = 60_000
const controlDrainMs = 15_000

/** @throws IdemqError UNSUPPORTED where there is nothing to judge; Error on an unknown control */
export async function runCampaign(options: CampaignOptions): Promise<CampaignResult> {
  const { broker, seed, control: controlName, harmless = false, keep = false } = options
  const control = controlName === undefined ? undefined : controls[controlName]
  if (controlName !== undefined && !control) throw new Error(`no control '${controlName}': --break list names them`)
  const run = await openRun({
    broker,
    seed,
    mix: control?.mix ?? defaultMix,
    keep,
    ...(controlName !== undefined && !harmless && { control: controlName }),
    ...(control?.maxUnderWay !== undefined && { maxUnderWay: control.maxUnderWay }),
    ...(control?.claimLeaseMs !== undefined && { claimLeaseMs: control.claimLeaseMs }),
  })
  try {
    return await campaign(run, options, control)
  } finally {
    await run.close()
  }
}

async function campaign(run: Run, options: CampaignOptions, control: Control | undefined): Promise<CampaignResult> {
  const { broker, kills, seed, harmless, onProgress } = options
  const plans = control ? aimedPlans(kills, seed, control.aim) : campaignPlans(kills, seed, run.adapter)
  const schedule = createSchedule(plans, kills, seed)
  const failures: string[] = []
  const deadlineMs = performance.now() + leastTimeMs + kills * timePerKillMs
  const places = new Map<string, string>()
  const unsubscribe = run.onStatement((statement) => {
    if (statement.type === 'dying') places.set(statement.by, statement.where)
  })

  const isOver = (): boolean => schedule.isDone() || performance.now() > deadlineMs || failures.length >= maxFailures
  const over = new AbortController()

  const keepAlive = async (role: Role): Promise<void> => {
    while (!isOver()) {
      const plan = schedule.next(role)
      const child = run.start(role, plan ? { plan } : {})
      const exit = plan ? await execute(run, child, plan, over.signal) : await untilOver(child, over.signal)
      if (plan) schedule.ended(role, plan, exit.killed ? placeOfDeath(run, places, child) : undefined)
      if (!exit.killed && !exit.clean) {
        failures.push(`${child.config.name} ended with code ${exit.code}: ${exit.stderr.trim()}`)
      }
      if (exit.killed) onProgress?.(schedule.kills())
      if (isOver()) over.abort()
    }
  }
  // One child that ends by itself leaves its compiled code to all that follow; the killed cannot.
  await run.start('operator', { once: true }).exited
  const wanted = control?.aim.some(({ kind }) => kind === 'freeze') ? frozenStaff : staff
  const present = roles.filter((role) => role !== 'relay' || run.adapter.outbox)
  await Promise.all(present.flatMap((role) => Array.from({ length: wanted[role] }, () => keepAlive(role))))
  unsubscribe()

  run.setProducing(false)
  if (!schedule.isDone()) failures.push(`only ${schedule.kills()} of ${kills} kills, or too few at some point, in time`)
  const drained = await drain(run, control && !harmless ? controlDrainMs : campaignDrainMs)
  failures.push(...drained.failures)
  const verdict = run.oracle.judge(await run.finals())

  const pointKills = new Map(applicablePoints(run.adapter).map((point) => [point, schedule.killsAt(point)] as const))
  const needed = control ? 0 : requiredHits(kills)
  const { jobs: _, ...counted } = verdict.counts
  const tooFew = [...pointKills].filter(([, hits]) => hits < needed)
  failures.push(...tooFew.map(([point, hits]) => `${point} was hit ${hits} times, ${needed} are needed`))
  return {
    broker: broker.name,
    seed,
    kills: schedule.kills(),
    counts: verdict.counts,
    findings: [...verdict.findings, ...failures.map((failure) => `campaign: ${failure}`)],
    aftermath: verdict.aftermath,
    pointKills,
    requiredHits: needed,
    ok: failures.length === 0 && Object.values(counted).every((count) => count === 0),
    directory: run.directory,
  }
}

/** Sees a child through its plan. Resolves when it has exited, by the plan or otherwise. */
async function execute(run: Run, child: Child, plan: Plan, over: AbortSignal): Promise<ChildExit> {
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

async function untilOver(child: Child, over: AbortSignal): Promise<ChildExit> {
  const stop = (): void => void child.stop()
  if (over.aborted) stop()
  over.addEventListener('abort', stop)
  const exit = await child.exited
  over.removeEventListener('abort', stop)
  return exit
}

/** Where a child said it would die, or that it was killed from outside. */
function placeOfDeath(run: Run, places: ReadonlyMap<string, string>, child: Child): string {
  run.poll()
  return places.get(child.config.name) ?? 'instant'
}
