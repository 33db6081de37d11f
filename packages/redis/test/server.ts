/** Real servers for the tests of this package, and what they need of an adapter. */
import { randomUUID } from 'node:crypto'
import { type BedServer, bed } from '@idemq/conformance/bed'
import type { Delivery, Outgoing, QueueRef } from '@idemq/core'
import { Redis } from 'ioredis'
import { afterAll, onTestFinished } from 'vitest'
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
