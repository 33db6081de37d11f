/** Real servers for the tests of this package, and what they need of an adapter. */
import { randomUUID } from 'node:crypto'
import { type BedServer, bed } from '@idemq/conformance/bed'
import type { Delivery, Outgoing, QueueRef } from '@idemq/core'
import { Redis } from 'ioredis'
import { afterAll, onTestFinished, vi } from 'vitest'
import { type RedisAdapter, type RedisOptions, redis } from '../src/options.ts'
import { signal } from './receiver.ts'

export { openReceiver, signal } from './receiver.ts'

export interface TestServer {
  readonly server: BedServer
  /** A client beside the adapter's. */
  readonly admin: Redis
  open(options?: RedisOptions): RedisAdapter
  /** An adapter with a queue that is declared. */
  start(options?: RedisOptions): Promise<{ adapter: RedisAdapter; queue: QueueRef }>
}

export async function testServer(name: 'redis' | 'valkey', options?: Parameters<typeof bed>[1]): Promise<TestServer> {
  const server = await bed(name, options)
  const admin = new Redis(server.url)
  admin.on('error', () => {})
  afterAll(async () => {
    admin.disconnect()
    await server.stop()
  })
  const open = (given: RedisOptions = {}): RedisAdapter =>
    closing(redis({ ...(given.client ? {} : { url: server.url }), onWarning: () => {}, ...given }))
  return {
    server,
    admin,
    open,
    async start(given) {
      const adapter = open(given)
      const queue = newQueue()
      await adapter.driver.declare(queue, 'create', signal)
      return { adapter, queue }
    },
  }
}

/** Closed when the test ends. */
export function closing(adapter: RedisAdapter): RedisAdapter {
  onTestFinished(async () => {
    await adapter.driver.close()
    await adapter.inbox.close()
  })
  return adapter
}

export function newQueue(): QueueRef {
  return { name: `q-${randomUUID().slice(0, 13)}`, group: 'default' }
}

export function message(text: string, change: Partial<Outgoing> = {}): Outgoing {
  const jobId = randomUUID()
  return {
    copyId: `${jobId}.0.1.0`,
    jobId,
    body: Buffer.from(text),
    partitionKey: jobId,
    ordered: false,
    delayMs: 0,
    ...change,
  }
}

export function texts(deliveries: readonly Delivery[]): string[] {
  return deliveries.map(({ body }) => Buffer.from(body).toString())
}

/**
 * Sends 320 copies, each until it is stored, and cuts all connections again and again meanwhile. Answers how many sends
 * were unknown.
 */
export async function sendUnderCuts({ driver }: RedisAdapter, queue: QueueRef, admin: Redis): Promise<number> {
  const copies = Array.from({ length: 300 }, (_, i) => message(String(i)))
  let unknown = 0
  const untilStored = (copy: Outgoing): Promise<boolean> =>
    vi.waitUntil(
      async () => {
        const [sent] = await driver.send(queue, [copy], signal).catch(() => [])
        if (sent?.status === 'unknown') unknown++
        return sent?.status === 'stored'
      },
      { timeout: 30_000, interval: 1 },
    )
  const sending = Promise.all(copies.map(untilStored))
  for (let cuts = 0; cuts < 20; cuts++) {
    await admin.call('CLIENT', 'KILL', 'TYPE', 'normal', 'SKIPME', 'yes')
    await Promise.all([untilStored(message('more')), untilStored(copies[cuts % copies.length]!)])
  }
  await sending
  return unknown
}

/** Until the server answers everybody with an error that begins with `word`. */
export async function untilRefused(admin: Redis, word: string): Promise<void> {
  const other = admin.duplicate({ enableReadyCheck: false })
  const isRefused = (): Promise<boolean> => other.exists('x').then(() => false, isRefusal)
  const isRefusal = (error: Error): boolean => error.message.startsWith(word)
  await vi.waitUntil(isRefused, { timeout: 10_000, interval: 10 })
  other.disconnect()
}
