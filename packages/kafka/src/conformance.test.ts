/** The suite on real brokers, each in a container of its own. */
import { driverSuite } from '@idemq/conformance'
import { bed } from '@idemq/conformance/bed'
import type { Adapter, InboxStore } from '@idemq/core'
import { memoryInbox } from '@idemq/memory'
import { afterAll, describe, it } from 'vitest'
import { type Cables, cables, quick } from '../test/server.ts'
import { kafkajsClient } from './kafkajs-client.ts'
import { names } from './names.ts'
import { kafka } from './options.ts'

/** A member is given up after two seconds, so that is the shortest a death can be noticed in. */
const scale = { leaseMs: 500, delayMs: 200, toleranceMs: 3_000, eventuallyMs: 15_000 }

for (const name of ['kafka', 'kafka-3.9'] as const) {
  const server = await bed(name)
  afterAll(() => server.stop())
  const cablesOf = new WeakMap<Adapter, Cables>()

  driverSuite(
    { describe, it },
    {
      name,
      capabilities: kafka({ url: server.url }).driver.capabilities,
      async createAdapter() {
        const own = cables()
        const adapter = kafka({ url: server.url, ...quick, client: own.client })
        cablesOf.set(adapter, own)
        return adapter
      },
      createInbox: sharedInbox(),
      scale,
      restart: () => server.restart(),
      async kill() {
        await server.kill()
        await server.start()
      },
      // A death is noticed when the session ends, not when the connections do.
      sever: (adapter) => cablesOf.get(adapter)!.cut(quick.sessionTimeoutMs + 1_500),
      async createMismatch(queue) {
        const connection = kafkajsClient({ brokers: [`${server.host}:${server.port}`] }, name).connection()
        const settings = { 'cleanup.policy': 'compact' }
        await connection.createTopics([{ name: names('').queue(queue.name), partitions: 2, replicas: 1, settings }])
        await connection.close()
      },
    },
  )
}

/** One inbox for all workers: what is closed is a worker's own view of it. */
function sharedInbox(): () => Promise<InboxStore> {
  const inbox = memoryInbox()
  return async () => ({ ...inbox, close: async () => {} })
}
