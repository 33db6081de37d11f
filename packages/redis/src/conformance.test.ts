/** The suites on real servers, each in a container of its own. */
import { randomUUID } from 'node:crypto'
import { driverSuite, storeSuite } from '@idemq/conformance'
import { bed } from '@idemq/conformance/bed'
import type { Adapter } from '@idemq/core'
import { Redis } from 'ioredis'
import { afterAll, describe, it, vi } from 'vitest'
import { queueKey } from './keys.ts'
import { redis, redisInbox } from './options.ts'

const scale = { leaseMs: 400, delayMs: 100 }

for (const name of ['redis', 'valkey'] as const) {
  const server = await bed(name)
  const admin = new Redis(server.url)
  admin.on('error', () => {})
  afterAll(async () => {
    admin.disconnect()
    await server.stop()
  })

  const names = new WeakMap<Adapter, string>()
  /** Every connection of one adapter has a name of its own, to be found by on the server. */
  const createAdapter = async (): Promise<Adapter> => {
    const connectionName = randomUUID()
    const adapter = redis({ client: new Redis(server.url, { connectionName, lazyConnect: true }) })
    names.set(adapter, connectionName)
    return adapter
  }

  const idsOf = async (adapter: Adapter): Promise<number[]> =>
    String(await admin.client('LIST'))
      .split('\n')
      .filter((line) => line.includes(` name=${names.get(adapter)} `))
      .map((line) => Number(/^id=(\d+)/.exec(line)?.[1]))

  driverSuite(
    { describe, it },
    {
      name,
      capabilities: redis(server.url).driver.capabilities,
      createAdapter,
      scale,
      restart: () => server.restart(),
      async kill() {
        await server.kill()
        await server.start()
      },
      async sever(adapter) {
        const severed = await idsOf(adapter)
        for (const id of severed) await admin.client('KILL', 'ID', id)
        // A send on its way over a dead connection is rightly answered 'unknown': the adapter has noticed once it is back.
        const isBack = (ids: number[]): boolean =>
          ids.length >= severed.length && !ids.some((id) => severed.includes(id))
        await vi.waitUntil(async () => isBack(await idsOf(adapter)), { timeout: 10_000, interval: 20 })
      },
      async createMismatch(queue) {
        await admin.hset(queueKey('idemq', queue.name), 'format', 'unknown')
      },
    },
  )

  storeSuite(
    { describe, it },
    {
      name,
      capabilities: redisInbox(server.url).capabilities,
      createStore: async () => redisInbox(server.url),
      scale,
    },
  )

  if (name === 'valkey') continue
  // Once more as on a server that knows no more than Redis 6.2.
  const baseline = { url: server.url, baseline: true }
  driverSuite(
    { describe, it },
    {
      name: `${name}, baseline`,
      capabilities: redis(baseline).driver.capabilities,
      createAdapter: async () => redis(baseline),
      scale,
    },
  )
  storeSuite(
    { describe, it },
    {
      name: `${name}, baseline`,
      capabilities: redisInbox(baseline).capabilities,
      createStore: async () => redisInbox(baseline),
      scale,
    },
  )
}
