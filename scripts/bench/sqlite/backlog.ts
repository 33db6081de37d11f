/** Whether a long queue slows taking from it. */
import type { Driver, Outgoing, Receiver } from '../../../packages/core/src/index.ts'
import { sqlite } from '../../../packages/sqlite/src/index.ts'
import type { Tasks } from '../harness/fresh-process.ts'
import { type Cost, expectCount, measure } from '../harness/measure.ts'
import { concurrency, enqueueBatch } from '../harness/workload.ts'

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

const { signal } = new AbortController()
const queue = { name: 'backlog', group: 'default' }
const bodyBytes = 400

class Queue {
  readonly #driver: Driver
  readonly #receiver: Receiver
  #sent = 0

  static async open(path: string): Promise<Queue> {
    const { driver } = sqlite(path)
    await driver.declare(queue, 'create', signal)
    const options = { maxUnsettled: 2 * concurrency, leaseMs: 30_000, onLost: () => {} }
    return new Queue(driver, await driver.open(queue, options, signal))
  }

  private constructor(driver: Driver, receiver: Receiver) {
    this.#driver = driver
    this.#receiver = receiver
  }

  async send(jobs: number): Promise<void> {
    for (const end = this.#sent + jobs; this.#sent < end; this.#sent += enqueueBatch) {
      await this.#driver.send(queue, messages(this.#sent, Math.min(enqueueBatch, end - this.#sent)), signal)
    }
  }

  /** Receives and settles in hundreds. */
  async take(jobs: number): Promise<void> {
    let taken = 0
    while (taken < jobs) {
      const deliveries = await this.#receiver.receive(Math.min(concurrency, jobs - taken), 0, signal)
      if (deliveries.length === 0) break
      const settlements = deliveries.map((delivery) => ({ delivery, outcome: 'ack' as const }))
      const settled = await this.#receiver.settle(settlements, signal)
      taken += settled.filter(({ status }) => status === 'settled').length
    }
    expectCount('jobs taken', taken, jobs)
  }

  async close(): Promise<void> {
    await this.#driver.close()
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
export async function takeFromBoth(options: Backlog): Promise<BacklogRound[]> {
  const { shortPath, shortLength, longPath, longLength, jobs, rounds } = options
  const [short, long] = [await Queue.open(shortPath), await Queue.open(longPath)]
  await short.send(shortLength)
  await long.send(longLength)
  const results: BacklogRound[] = []
  const takeFrom = async (from: Queue): Promise<Cost> => {
    const cost = await measure(jobs, () => from.take(jobs))
    await from.send(jobs)
    return cost
  }
  // One round to warm up, then the order alternates.
  for (let round = -1; round < rounds; round++) {
    const longFirst = round % 2 === 0
    const first = await takeFrom(longFirst ? long : short)
    const second = await takeFrom(longFirst ? short : long)
    if (round >= 0) results.push(longFirst ? { short: second, long: first } : { short: first, long: second })
  }
  await short.close()
  await long.close()
  return results
}

export const tasks: Tasks = { takeFromBoth }
