/** Whether a long queue slows taking from it. */
import type { Driver, InboxStore, Outgoing, Receiver } from '../../../packages/core/src/index.ts'
import { sqlite } from '../../../packages/sqlite/src/index.ts'
import type { Tasks } from '../harness/fresh-process.ts'
import { type Cost, expectCount, measure } from '../harness/measure.ts'
import { concurrency, enqueueBatch, scattered } from '../harness/workload.ts'

export interface Backlog {
  readonly shortPath: string
  readonly shortLength: number
  readonly longPath: string
  readonly longLength: number
  /** Taken in each round, from both queues. */
  readonly jobs: number
  readonly rounds: number
}

export interface BacklogRound {
  readonly short: Cost
  readonly long: Cost
}

export interface BacklogResults {
  /** Received and settled. */
  readonly brokerOnly: readonly BacklogRound[]
  /** Received, claimed, completed and settled, as a worker does. */
  readonly withInbox: readonly BacklogRound[]
}

const { signal } = new AbortController()
const queue = { name: 'backlog', group: 'default' }
const bodyBytes = 400
const times = { leaseMs: 15_000, retentionMs: 14 * 24 * 3_600_000 }

class Queue {
  readonly #driver: Driver
  readonly #receiver: Receiver
  readonly #inbox: InboxStore
  #sent = 0
  #taken = 0

  static async open(path: string): Promise<Queue> {
    const { driver, inbox } = sqlite(path)
    await driver.declare(queue, 'create', signal)
    const options = { maxUnsettled: 2 * concurrency, leaseMs: 30_000, onLost: () => {} }
    return new Queue(driver, await driver.open(queue, options, signal), inbox as InboxStore)
  }

  private constructor(driver: Driver, receiver: Receiver, inbox: InboxStore) {
    this.#driver = driver
    this.#receiver = receiver
    this.#inbox = inbox
  }

  async send(jobs: number): Promise<void> {
    for (const end = this.#sent + jobs; this.#sent < end; this.#sent += enqueueBatch) {
      await this.#driver.send(queue, messages(this.#sent, Math.min(enqueueBatch, end - this.#sent)), signal)
    }
  }

  /** Receives and settles in hundreds, with what the inbox does in between if asked. */
  async take(jobs: number, inbox: boolean): Promise<void> {
    let taken = 0
    while (taken < jobs) {
      const deliveries = await this.#receiver.receive(Math.min(concurrency, jobs - taken), 0, signal)
      if (deliveries.length === 0) break
      if (inbox) await this.#complete(deliveries.length)
      const settlements = deliveries.map((delivery) => ({ delivery, outcome: 'ack' as const }))
      const settled = await this.#receiver.settle(settlements, signal)
      taken += settled.filter(({ status }) => status === 'settled').length
    }
    expectCount('jobs taken', taken, jobs)
  }

  async #complete(jobs: number): Promise<void> {
    const requests = Array.from({ length: jobs }, () => {
      const key = `backlog:${scattered(this.#taken++)}`
      return { scope: 'default/backlog', key, fingerprint: '', jobId: key, replay: 0, attempt: 1 }
    })
    const answers = await this.#inbox.claim(requests, times, signal)
    const ends = answers.map((answer, i) => {
      if (answer.status !== 'claimed') throw new Error(`claim: ${answer.status}`)
      const { scope, key } = requests[i]!
      return { scope, key, token: answer.token, state: 'completed', floor: 1, free: false, holdMs: 0 } as const
    })
    await this.#inbox.end(ends, times.retentionMs, signal)
  }

  async close(): Promise<void> {
    await this.#driver.close()
    await this.#inbox.close()
  }
}

function messages(from: number, count: number): Outgoing[] {
  return Array.from({ length: count }, (_, i) => {
    // In the order of sending, as UUIDv7 is.
    const jobId = `019a0000-0000-7000-8000-${String(from + i).padStart(12, '0')}`
    const body = Buffer.alloc(bodyBytes, 'x')
    return { copyId: `${jobId}.0.1.0`, jobId, body, partitionKey: jobId, ordered: false, delayMs: 0 }
  })
}

/** Takes from a short and a long queue by turns; both are filled up again between, which is not measured. */
export async function takeFromBoth(options: Backlog): Promise<BacklogResults> {
  const { shortPath, shortLength, longPath, longLength, jobs, rounds } = options
  const [short, long] = [await Queue.open(shortPath), await Queue.open(longPath)]
  await short.send(shortLength)
  await long.send(longLength)
  const takeFrom = async (from: Queue, inbox: boolean): Promise<Cost> => {
    const cost = await measure(jobs, () => from.take(jobs, inbox))
    await from.send(jobs)
    return cost
  }
  const run = async (inbox: boolean): Promise<BacklogRound[]> => {
    const results: BacklogRound[] = []
    // One round to warm up, then the order alternates.
    for (let round = -1; round < rounds; round++) {
      const longFirst = round % 2 === 0
      const first = await takeFrom(longFirst ? long : short, inbox)
      const second = await takeFrom(longFirst ? short : long, inbox)
      if (round >= 0) results.push(longFirst ? { short: second, long: first } : { short: first, long: second })
    }
    return results
  }
  const results = { brokerOnly: await run(false), withInbox: await run(true) }
  await short.close()
  await long.close()
  return results
}

export const tasks: Tasks = { takeFromBoth }
