/** One Postgres for a test file, and schemas of their own for its tests. */
import { randomUUID } from 'node:crypto'
import { type BedServer, bed } from '@idemq/conformance/bed'
import type { Outgoing, QueueRef, Receiver } from '@idemq/core'
import pg from 'pg'
import { afterAll, onTestFinished } from 'vitest'
import { type PostgresAdapter, type PostgresOptions, postgres } from '../src/index.ts'

export const signal: AbortSignal = new AbortController().signal
export const queue: QueueRef = { name: 'orders', group: 'default' }

export interface TestServer {
  readonly server: BedServer
  readonly url: string
  /** A client of the test's own, as the superuser. */
  readonly admin: pg.Pool
  /** A fresh schema with its queue declared, and what works on it. Closed when the test is finished. */
  start(options?: Partial<PostgresOptions>): Promise<Started>
}

export interface Started {
  readonly adapter: PostgresAdapter
  readonly schema: string
  /** Another process's view of the same schema. Closed when the test is finished. */
  open(options?: Partial<PostgresOptions>): PostgresAdapter
}

export async function testServer(): Promise<TestServer> {
  const server = await bed('postgres')
  const { url } = server
  const admin = new pg.Pool({ connectionString: url })
  admin.on('error', () => {})
  afterAll(async () => {
    await admin.end()
    await server.stop()
  })
  return {
    server,
    url,
    admin,
    async start(options = {}) {
      const schema = freshSchema()
      const open = (changes: Partial<PostgresOptions> = {}): PostgresAdapter => {
        const given = { ...options, ...changes }
        const adapter = postgres({ ...(given.pool ? {} : { url }), schema, ...given })
        onTestFinished(() => closeAll(adapter))
        return adapter
      }
      const adapter = open()
      await adapter.driver.declare(queue, 'create', signal)
      return { adapter, schema, open }
    },
  }
}

export function freshSchema(): string {
  return `t_${randomUUID().replaceAll('-', '').slice(0, 16)}`
}

export async function closeAll({ driver, inbox, outbox }: PostgresAdapter): Promise<void> {
  await driver.close()
  await inbox.close()
  await outbox.close()
}

export function message(text: string, options: Partial<Outgoing> = {}): Outgoing {
  const body = Buffer.from(text)
  return { copyId: text, jobId: text, body, partitionKey: text, ordered: false, delayMs: 0, ...options }
}

export function openReceiver(adapter: PostgresAdapter, leaseMs = 60_000): Promise<Receiver> {
  return adapter.driver.open(queue, { maxUnsettled: 10_000, leaseMs, onLost: () => {} }, signal)
}

export function texts(items: readonly { readonly body: Uint8Array }[]): string[] {
  return items.map(({ body }) => Buffer.from(body).toString())
}
