/**
 * The same bodies through a stream by `ioredis` alone: no copies told apart, delays, retries or handlers. What idemq is
 * compared with.
 */
import { Redis } from 'ioredis'
import { decode, encodedBodies } from '../harness/bodies.ts'
import type { HandRun, PublishByHand, WaitingRun } from '../harness/broker-bench.ts'
import type { Tasks } from '../harness/fresh-process.ts'
import { alongside, idemqLine, type LineTimes, type OpenLine } from '../harness/lines.ts'
import { type Cost, expectCount, measure } from '../harness/measure.ts'
import { rollCall } from '../harness/roll-call.ts'
import { enqueueBatch } from '../harness/workload.ts'

const stream = 'hand'
const group = 'hand'
/** Each with a connection of its own: one reads while what the other read is worked. */
const consumers = 2

/** The replies of streams have one shape in RESP2 only. */
const open = (url: string): Redis => new Redis(url, { protocol: 2 })

/** One pipeline. */
async function add(client: Redis, to: string, bodies: readonly Buffer[]): Promise<void> {
  const pipeline = client.pipeline()
  for (const body of bodies) pipeline.xadd(to, '*', 'b', body)
  const answers = await pipeline.exec()
  const failed = answers?.find(([error]) => error)
  if (failed) throw failed[0]
}

type Entry = readonly [id: Buffer, fields: readonly Buffer[]]

/** Up to {@link enqueueBatch} entries; waits for the first one if told so. */
async function read(
  client: Redis,
  from: string,
  consumer: string,
  wait: 'wait' | 'at once',
): Promise<readonly Entry[]> {
  const block = wait === 'wait' ? ['BLOCK', 0] : []
  const args = ['GROUP', group, consumer, 'COUNT', enqueueBatch, ...block, 'STREAMS', from, '>']
  const reply = (await client.callBuffer('XREADGROUP', args)) as [stream: Buffer, entries: readonly Entry[]][] | null
  return reply?.[0]?.[1] ?? []
}

/** In the round trip of the next read, if that follows at once. */
function settle(client: Redis, from: string, entries: readonly Entry[]): Promise<unknown> {
  const ids = entries.map(([id]) => id)
  return Promise.all([client.xack(from, group, ...ids), client.xdel(from, ...ids)])
}

const orderOf = ([, fields]: Entry): string => decode(fields[1]!).payload.orderId

/** Adds pipelines of {@link enqueueBatch}, one after the other. */
export async function publishByHand({ url, jobs, warmupJobs, encode }: PublishByHand): Promise<Cost> {
  const client = open(url)
  const bodies = await encodedBodies(jobs)
  const envelopes = encode ? bodies.map(decode) : []
  const publish = async (to: string, many: number): Promise<void> => {
    for (let next = 0; next < many; next += enqueueBatch) {
      const end = Math.min(next + enqueueBatch, many)
      const batch = encode
        ? envelopes.slice(next, end).map((envelope) => Buffer.from(JSON.stringify(envelope)))
        : bodies.slice(next, end)
      await add(client, to, batch)
    }
  }
  await publish('warm', warmupJobs)
  const cost = await measure(jobs, () => publish(stream, jobs))
  expectCount('entries', await client.xlen(stream), jobs)
  client.disconnect()
  return cost
}

async function workStream(clients: readonly Redis[], from: string, jobs: number): Promise<Cost> {
  await clients[0]!.xgroup('CREATE', from, group, '0')
  const roll = rollCall(0, jobs)
  const consume = async (client: Redis, consumer: string): Promise<void> => {
    const settled: Promise<unknown>[] = []
    for (;;) {
      const entries = await read(client, from, consumer, 'at once')
      if (entries.length === 0) break
      for (const entry of entries) roll.present(orderOf(entry))
      settled.push(settle(client, from, entries))
    }
    await Promise.all(settled)
  }
  const cost = await measure(jobs, async () => {
    await Promise.all([roll.complete, ...clients.map((client, i) => consume(client, String(i)))])
  })
  roll.check()
  expectCount('entries left', await clients[0]!.xlen(from), 0)
  return cost
}

/** Works what {@link publishByHand} left. */
export async function workByHand({ url, jobs, warmupJobs }: HandRun): Promise<Cost> {
  const clients = Array.from({ length: consumers }, () => open(url))
  await workStream(clients, 'warm', warmupJobs)
  const cost = await workStream(clients, stream, jobs)
  for (const client of clients) client.disconnect()
  return cost
}

/** A producer, and a consumer that is blocked in XREADGROUP. */
function byHand(url: string): OpenLine {
  return async (started, jobs) => {
    const bodies = await encodedBodies(jobs)
    const [producer, consumer] = [open(url), open(url)]
    await producer.xgroup('CREATE', stream, group, '0', 'MKSTREAM')
    const settled: Promise<unknown>[] = []
    let closed = false
    const consume = async (): Promise<void> => {
      for (;;) {
        const entries = await read(consumer, stream, '0', 'wait')
        for (const entry of entries) started(orderOf(entry))
        settled.push(settle(consumer, stream, entries))
      }
    }
    const consuming = consume().catch((error: unknown) => {
      if (!closed) throw error
    })
    return {
      send: (from, many) => add(producer, stream, bodies.slice(from, from + many)),
      async close() {
        await Promise.all(settled)
        expectCount('entries left', await producer.xlen(stream), 0)
        closed = true
        consumer.disconnect()
        producer.disconnect()
        await consuming
      },
    }
  }
}

/** By turns: by hand, idemq without an inbox, idemq with one. */
export function waiting({ url, otherUrl, ...sizes }: WaitingRun): Promise<LineTimes[]> {
  return alongside([byHand(url), idemqLine(url, 'no inbox'), idemqLine(otherUrl, 'inbox')], sizes)
}

export const tasks: Tasks = { publishByHand, workByHand, waiting }
