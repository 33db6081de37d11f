/** The bench of a real broker: idemq beside its client used by hand, and beside other job libraries. */
import { readFileSync } from 'node:fs'
import { join } from 'node:path'
import { root } from '../../workspace.ts'
import { inFreshProcess, type Task } from './fresh-process.ts'
import { type IdemqRun, type Place, published, worked, workedWithInbox } from './idemq-tasks.ts'
import type { Alongside, LineTimes } from './lines.ts'
import { type Cost, median, quantile } from './measure.ts'
import { atLeast, atMost, count, heading, type Line, ms, print, rate, ratio, us } from './report.ts'
import { enqueueBatch } from './workload.ts'

export type HandRun = IdemqRun
export interface PublishByHand extends HandRun {
  /** Whether the JSON of each body is made on the way, or beforehand. */
  readonly encode: boolean
}
export interface WaitingRun extends Place, Alongside {}
export type PeerRun = IdemqRun

/** One process that works jobs, set up in one way. */
export interface Contender {
  readonly setting: string
  readonly run: (place: Place) => Promise<Cost>
}

/** Another job library, with the settings that may suit it best. The fastest one counts. */
export interface Peer {
  readonly name: string
  /** Absent: shown for information. */
  readonly target?: number
  readonly contenders: readonly Contender[]
}

export interface BrokerBench {
  readonly title: string
  /** Empties the server, and names a place on it. */
  readonly fresh: () => Promise<Place>
  /** The file of the tasks, and what they do, for the report. */
  readonly byHand: {
    readonly file: string
    readonly publish: Task<PublishByHand, Cost>
    readonly publishes: string
    readonly work: Task<HandRun, Cost>
    readonly works: string
    readonly waiting: Task<WaitingRun, LineTimes[]>
    readonly waits: string
  }
  readonly peers: readonly Peer[]
}

const rounds = 5
const jobs = 100_000
const peerRounds = 3
/** The peers are slower. */
const peerJobs = 50_000
const warmupJobs = 10_000
const peerWarmupJobs = 5_000
const waitingSizes: Alongside = { burstJobs: 100, bursts: 200, singles: 500 }
const targets = { publish: 0.9, work: 0.8, latency: 1.5 }
const idemqTasks = import.meta.resolve('./idemq-tasks.ts')

/** Of one round: rates are compared within it, as the machine was the same. */
interface Round {
  readonly published: Cost
  readonly publishedEncoded: Cost
  readonly publishedEncoding: Cost
  readonly worked: Cost
  readonly workedByHand: Cost
}

/** @throws Error if a job was lost or worked twice; never because of a time */
export async function benchBroker(broker: BrokerBench): Promise<void> {
  heading(
    `${broker.title}; rounds by turns, medians: ${rounds} of ${count(jobs)} jobs, beside peers ${peerRounds} of ${count(peerJobs)}`,
  )
  await printThroughput(broker)
  await printPeers(broker)
  await printWaiting(broker)
}

async function printThroughput({ fresh, byHand }: BrokerBench): Promise<void> {
  const results: Round[] = []
  for (let round = 0; round < rounds; round++) {
    const idemq = async (): Promise<Pick<Round, 'published' | 'worked'>> => {
      const run = { ...(await fresh()), jobs, warmupJobs }
      const cost = await inFreshProcess(idemqTasks, published, run)
      return { published: cost, worked: await inFreshProcess(idemqTasks, worked, run) }
    }
    const hand = async (): Promise<Omit<Round, 'published' | 'worked'>> => {
      const run = { ...(await fresh()), jobs, warmupJobs }
      const publishedEncoded = await inFreshProcess(byHand.file, byHand.publish, { ...run, encode: false })
      const workedByHand = await inFreshProcess(byHand.file, byHand.work, run)
      const again = { ...(await fresh()), jobs, warmupJobs, encode: true }
      return {
        publishedEncoded,
        workedByHand,
        publishedEncoding: await inFreshProcess(byHand.file, byHand.publish, again),
      }
    }
    if (round % 2 === 0) results.push({ ...(await idemq()), ...(await hand()) })
    else results.push({ ...(await hand()), ...(await idemq()) })
  }
  const all = (key: keyof Round): Cost[] => results.map((result) => result[key])
  const { publishes, works } = byHand
  print(
    ...rateLines(`enqueued in batches of ${count(enqueueBatch)}`, all('published')),
    ...ratioLines(`${publishes}, encoded beforehand`, all('published'), all('publishedEncoded'), targets.publish),
    ...ratioLines(`${publishes}, encoded while sending`, all('published'), all('publishedEncoding'), targets.publish),
    ...rateLines(`worked without inbox, concurrency ${count(enqueueBatch)}`, all('worked')),
    ...ratioLines(works, all('worked'), all('workedByHand'), targets.work),
  )
}

const rateOf = (costs: readonly Cost[]): number => median(costs.map((cost) => cost.jobsPerSecond))

function rateLines(what: string, costs: readonly Cost[]): Line[] {
  return [
    { what, value: rate(rateOf(costs)) },
    { what: '  CPU per job', value: us(median(costs.map((cost) => cost.cpuUsPerJob))) },
  ]
}

/** `theirs` are of the same rounds as `ours`. */
function ratioLines(what: string, ours: readonly Cost[], theirs: readonly Cost[], target?: number): Line[] {
  const value = median(ours.map((cost, i) => cost.jobsPerSecond / theirs[i]!.jobsPerSecond))
  const cpuUs = us(median(theirs.map((cost) => cost.cpuUsPerJob)))
  return [
    { what: `  ${what} (CPU per job ${cpuUs})`, value: rate(rateOf(theirs)) },
    {
      what: '    ratio',
      value: ratio(value),
      ...(target !== undefined && { target: atLeast(value, target, ratio(target)) }),
    },
  ]
}

/** What a peer's task is given. */
export function peerRun(place: Place): PeerRun {
  return { ...place, jobs: peerJobs, warmupJobs: peerWarmupJobs }
}

const idemqContenders: readonly Contender[] = [100, 1_000].map((concurrency) => ({
  setting: `concurrency ${count(concurrency)}`,
  run: (place) => inFreshProcess(idemqTasks, workedWithInbox, { ...peerRun(place), concurrency }),
}))

interface Result {
  readonly setting: string
  readonly costs: readonly Cost[]
}

async function printPeers({ fresh, peers }: BrokerBench): Promise<void> {
  const entries = [idemqContenders, ...peers.map(({ contenders }) => contenders)].map((contenders) =>
    contenders.map(({ setting, run }) => ({ setting, run, costs: [] as Cost[] })),
  )
  for (let round = 0; round < peerRounds; round++) {
    const inOrder = entries.flat()
    for (const { run, costs } of round % 2 === 0 ? inOrder : inOrder.toReversed()) costs.push(await run(await fresh()))
  }
  const [ours, ...theirs] = entries.map((results) => fastestFirst(results))
  const [best, ...others] = ours!
  print(
    ...rateLines(`worked with inbox, ${best.setting}`, best.costs),
    ...others.map(slowerLine),
    ...peers.flatMap(({ name, target }, i) => {
      const [theirBest, ...theirOthers] = theirs[i]!
      return [
        ...ratioLines(`${name}, ${theirBest.setting}`, best.costs, theirBest.costs, target),
        ...theirOthers.map(slowerLine),
      ]
    }),
  )
}

function fastestFirst(results: readonly Result[]): readonly [Result, ...Result[]] {
  return results.toSorted((a, b) => rateOf(b.costs) - rateOf(a.costs)) as [Result, ...Result[]]
}

function slowerLine({ setting, costs }: Result): Line {
  return { what: `    slower: ${setting}`, value: rate(rateOf(costs)) }
}

/** A library of package.json, with its version. */
export function versioned(library: string): string {
  const { devDependencies } = JSON.parse(readFileSync(join(root, 'package.json'), 'utf8'))
  return `${library} ${devDependencies[library]}`
}

async function printWaiting({ fresh, byHand }: BrokerBench): Promise<void> {
  const run = { ...(await fresh()), ...waitingSizes }
  const [hand, bare, inbox] = (await inFreshProcess(byHand.file, byHand.waiting, run)) as [
    LineTimes,
    LineTimes,
    LineTimes,
  ]
  const { burstJobs } = waitingSizes
  const burstRate = ({ bursts }: LineTimes): number => (burstJobs * 1_000) / median(bursts)
  const burst = burstRate(bare) / burstRate(hand)
  const latency = ({ singles }: LineTimes): string => `${ms(quantile(singles, 0.5))}, ${ms(quantile(singles, 0.99))}`
  const ratios = (what: string, line: LineTimes): Line[] =>
    [0.5, 0.99].map((q) => {
      const value = quantile(line.singles, q) / quantile(hand.singles, q)
      return {
        what: `    ratio ${what}, p${q * 100}`,
        value: ratioUp(value),
        target: atMost(value, targets.latency, ratio(targets.latency)),
      }
    })
  print(
    { what: `${burstJobs} enqueued at once and worked without inbox, idle worker`, value: rate(burstRate(bare)) },
    { what: `  ${byHand.waits}`, value: rate(burstRate(hand)) },
    { what: '    ratio', value: ratio(burst), target: atLeast(burst, targets.work, ratio(targets.work)) },
    { what: `  with inbox`, value: rate(burstRate(inbox)) },
    { what: 'idle, enqueue to start of handler, without inbox: p50, p99', value: latency(bare) },
    { what: 'idle, enqueue to start of handler, with inbox: p50, p99', value: latency(inbox) },
    { what: `  ${byHand.waits}: p50, p99`, value: latency(hand) },
    ...ratios('without inbox', bare),
    ...ratios('with inbox', inbox),
  )
}

/** Raised, not rounded: what is above a target never looks like it. */
function ratioUp(n: number): string {
  return (Math.ceil(n * 100) / 100).toFixed(2)
}
