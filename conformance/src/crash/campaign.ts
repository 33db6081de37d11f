/**
 * A crash campaign: producers, workers, a relay and an operator are kept alive and killed by plan, the server and the
 * network too where that is asked for; then everything drains undisturbed, then the oracle judges.
 */
import { type CrashPoint, IdemqError } from '@idemq/core'
import type { Aftermath, Counts } from '../oracle/verdict.ts'
import { assertOwnServer, type Broker } from './brokers.ts'
import { type Aim, controls, type Faults } from './controls.ts'
import { drain } from './drain.ts'
import { defaultMix } from './jobs.ts'
import { type Fault, faults } from './network.ts'
import { aimedPlans, applicablePoints, campaignPlans, type Edge, type Role, requiredHits } from './plans.ts'
import { relayAim, relayPlaces, relayStaff } from './relay-kills.ts'
import { openRun, type Run } from './run.ts'
import { turmoil } from './turmoil.ts'

export interface CampaignOptions extends Faults {
  readonly broker: Broker
  /** How many processes are killed. */
  readonly kills: number
  /** Repeats a campaign's choices: who dies where, what else goes wrong, and what is enqueued. */
  readonly seed: number
  /** Kills relays alone, `kills` times at each place where one can be. @default false */
  readonly relays?: boolean
  /** Name of a negative control to run with. */
  readonly control?: string
  /** With `control`: its aim, mix and faults, but the real parts, which must pass. @default false */
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
  /** Kills at each point that can occur on this broker, or at each place of a relay. */
  readonly pointKills: ReadonlyMap<CrashPoint | Edge, number>
  readonly requiredHits: number
  /** Present where the server was to be killed. */
  readonly brokerKills?: number
  /** How often each fault of the network was on. Present where it was to be bad. */
  readonly faults?: ReadonlyMap<Fault, number>
  /** How often a process found the broker or the way to it away for too long, ended, and was started again. */
  readonly unavailable: number
  /** What went through the outbox. Present where relays were to be killed. */
  readonly outbox?: OutboxFigures
  /** Nothing was counted, nothing failed to run or drain, and every point was hit often enough. */
  readonly ok: boolean
  /** Where the log and files are, if they were kept. */
  readonly directory: string
}

export interface OutboxFigures {
  /** Rows of committed transactions: each must have been sent. */
  readonly committed: number
  /** Rows of transactions that rolled back: none must have been. */
  readonly rolledBack: number
  /** Deliveries of rows sent again that the inbox recognised. */
  readonly absorbed: number
}

/** Children of each role at once. */
const staff: Readonly<Record<Role, number>> = { producer: 2, worker: 3, relay: 1, operator: 1 }
/** A frozen worker does nothing for seconds: more of them, so that others take over meanwhile. */
const frozenStaff: Readonly<Record<Role, number>> = { ...staff, worker: 8 }
const campaignDrainMs = 60_000
const controlDrainMs = 15_000

/**
 * @throws IdemqError UNSUPPORTED where there is nothing to judge, or nothing to which what is asked for could happen;
 * Error on an unknown control
 */
export async function runCampaign(options: CampaignOptions): Promise<CampaignResult> {
  const { broker, seed, control: controlName, relays = false, harmless = false, keep = false } = options
  const control = controlName === undefined ? undefined : controls[controlName]
  if (controlName !== undefined && !control) throw new Error(`no control '${controlName}': --break list names them`)
  const { brokerKills = control?.faults?.brokerKills ?? 0, net: asked = control?.faults?.net ?? [] } = options
  const net = typeof asked === 'boolean' ? (asked ? faults : []) : asked
  if (brokerKills > 0) assertOwnServer(broker, '--broker-kills')
  const aim: Aim | undefined = relays ? relayAim : control
  const run = await openRun({
    broker,
    seed,
    mix: aim?.mix ?? defaultMix,
    keep,
    net: net.length > 0,
    volatile: control?.volatile === true && !harmless,
    ...(controlName !== undefined && !harmless && { control: controlName }),
    ...(aim?.maxUnderWay !== undefined && { maxUnderWay: aim.maxUnderWay }),
    ...(aim?.claimLeaseMs !== undefined && { claimLeaseMs: aim.claimLeaseMs }),
  })
  try {
    return await campaign(run, { ...options, brokerKills, net }, aim)
  } finally {
    await run.close()
  }
}

async function campaign(
  run: Run,
  options: CampaignOptions & { readonly brokerKills: number; readonly net: readonly Fault[] },
  aim: Aim | undefined,
): Promise<CampaignResult> {
  const { broker, seed, control, harmless = false, relays = false, brokerKills, net, onProgress = () => {} } = options
  if (aim?.needsOutbox && !run.adapter.outbox) {
    throw new IdemqError('UNSUPPORTED', `${broker.name} has no outbox of its own, so nothing for relays to do`)
  }
  const kills = relays ? options.kills * relayPlaces.length : options.kills
  const trouble = await turmoil({
    run,
    plans: aim ? aimedPlans(kills, seed, aim.aim) : campaignPlans(kills, seed, run.adapter),
    kills,
    seed,
    staff: staffFor(aim),
    edgesToo: relays,
    brokerKills,
    net,
    onProgress,
  })
  const { schedule } = trouble
  run.setProducing(false)
  const drained = await drain(run, control !== undefined && !harmless ? controlDrainMs : campaignDrainMs)
  const verdict = run.oracle.judge(await run.finals())

  const watched = relays ? relayPlaces : applicablePoints(run.adapter)
  const pointKills = new Map(watched.map((place) => [place, schedule.killsAt(place)]))
  const needed = relays ? options.kills : control === undefined ? requiredHits(kills) : 0
  const tooFew = [...pointKills].filter(([, hits]) => hits < needed)
  const failures = [
    ...trouble.failures,
    ...drained.failures,
    ...tooFew.map(([point, hits]) => `${point} was hit ${hits} times, ${needed} are needed`),
  ]
  const { jobs: _, ...counted } = verdict.counts
  return {
    broker: broker.name,
    seed,
    kills: schedule.kills(),
    counts: verdict.counts,
    findings: [...verdict.findings, ...failures.map((failure) => `campaign: ${failure}`)],
    aftermath: verdict.aftermath,
    pointKills,
    requiredHits: needed,
    ...(brokerKills > 0 && { brokerKills: trouble.brokerKills }),
    ...(net.length > 0 && { faults: trouble.faults }),
    unavailable: eventsOf(run, 'unavailable'),
    ...(relays && { outbox: { ...verdict.outbox, absorbed: eventsOf(run, 'deduplicated') } }),
    ok: failures.length === 0 && Object.values(counted).every((count) => count === 0),
    directory: run.directory,
  }
}

function staffFor(aim: Aim | undefined): Readonly<Record<Role, number>> {
  if (aim === relayAim) return relayStaff
  return aim?.aim.some(({ kind }) => kind === 'freeze') ? frozenStaff : staff
}

function eventsOf({ statements }: Run, event: string): number {
  return statements.filter((statement) => statement.type === 'event' && statement.event === event).length
}
