/** Producer and consumer of a queue on which there is nothing to do: how fast what is sent is begun. */
import { setTimeout as delay } from 'node:timers/promises'
import { type Job, noInbox } from '../../../packages/core/src/index.ts'
import { expectEmpty, open } from './idemq-tasks.ts'
import { rollCall } from './roll-call.ts'
import { type Charge, chargeOrder, charges, enqueueAll, unkeyedCharge } from './workload.ts'

export interface Line {
  /** Sends the jobs of `charges(from, jobs)`. Resolves when they are stored. */
  readonly send: (from: number, jobs: number) => Promise<unknown>
  /** @throws Error if anything is left in the queue */
  readonly close: () => Promise<void>
}

/** `started` is called with the order of each job when its handler begins; `jobs` will be sent in all. */
export type OpenLine = (started: (orderId: string) => void, jobs: number) => Promise<Line>

/** Two clients, so that the consumer hears of new work from the broker, as one in another process would. */
export function idemqLine(url: string, inbox: 'inbox' | 'no inbox'): OpenLine {
  const job: Job<Charge> = inbox === 'inbox' ? chargeOrder : unkeyedCharge
  return async (started) => {
    const [producer, consumer] = [await open(url), await open(url)]
    const worker = consumer.worker({ concurrency: 1_000, ...(inbox === 'no inbox' && { inbox: noInbox() }) })
    worker.handle(job, ({ orderId }) => started(orderId))
    await worker.start()
    return {
      async send(from, jobs) {
        if (jobs === 1) await producer.enqueue(job, charges(from, 1)[0]!)
        else await enqueueAll(producer, [charges(from, jobs)], job)
      },
      async close() {
        await worker.stop()
        await expectEmpty(producer)
        await producer.close()
        await consumer.close()
      },
    }
  }
}

export interface Alongside {
  /** Sent at once. */
  readonly burstJobs: number
  readonly bursts: number
  /** Sent one at a time. */
  readonly singles: number
}

/** Of one line, in milliseconds from the call that sends to the start of the last handler. */
export interface LineTimes {
  readonly bursts: readonly number[]
  readonly singles: readonly number[]
}

const warmups = 30

/** Sends the same to each of some lines by turns, always to one that is idle. */
export async function alongside(
  openers: readonly OpenLine[],
  { burstJobs, bursts, singles }: Alongside,
): Promise<LineTimes[]> {
  const jobs = warmups * (burstJobs + 1) + bursts * burstJobs + singles
  const lines = await Promise.all(openers.map((opener) => timedLine(opener, jobs)))
  const turns = async (many: number, size: number, pauseMs: (turn: number) => number): Promise<number[][]> => {
    const times = lines.map((): number[] => [])
    for (let turn = 0; turn < many; turn++) {
      for (const [i, line] of lines.entries()) {
        await delay(pauseMs(turn))
        times[i]!.push(await line.time(size))
      }
    }
    return times
  }
  // Pauses are of odd lengths, so that no poll keeps step with them.
  const idle = (turn: number): number => 3 + ((turn * 7) % 8)
  await turns(warmups, burstJobs, () => 1)
  await turns(warmups, 1, idle)
  const burstTimes = await turns(bursts, burstJobs, () => 1)
  const singleTimes = await turns(singles, 1, idle)
  await Promise.all(lines.map((line) => line.close()))
  return lines.map((_, i) => ({ bursts: burstTimes[i]!, singles: singleTimes[i]! }))
}

interface TimedLine {
  /** Sends so many and waits for their starts. */
  readonly time: (jobs: number) => Promise<number>
  readonly close: () => Promise<void>
}

async function timedLine(opener: OpenLine, jobs: number): Promise<TimedLine> {
  const roll = rollCall(0, jobs)
  let sent = 0
  let missing = 0
  let lastStartedMs = 0
  let allStarted = (): void => {}
  const stalled = roll.complete.then(() => new Promise<never>(() => {}))
  const line = await opener((orderId) => {
    roll.present(orderId)
    lastStartedMs = performance.now()
    if (--missing === 0) allStarted()
  }, jobs)
  return {
    async time(many) {
      missing = many
      const started = new Promise<void>((resolve) => {
        allStarted = resolve
      })
      const sentAtMs = performance.now()
      await Promise.race([Promise.all([line.send(sent, many), started]), stalled])
      sent += many
      return lastStartedMs - sentAtMs
    },
    async close() {
      await line.close()
      roll.check()
    },
  }
}
