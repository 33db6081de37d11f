/** Where the examples run. Nothing else in them names a broker or a database. */
import { mkdirSync } from 'node:fs'
import { connect, type InboxStore, type Mq, openStores, type OutboxStore, type WorkerOptions } from '@idemq/core'

export interface Connection {
  readonly mq: Mq
  /** Set by `IDEMQ_STORE_URL`; absent = the broker's own. */
  readonly inbox?: InboxStore
  readonly outbox?: OutboxStore
  close(): Promise<void>
}

function brokerUrl(): string {
  const url = process.env.IDEMQ_URL
  if (url) return url
  mkdirSync('.data', { recursive: true })
  return 'sqlite:./.data/examples.db'
}

/**
 * Connects to the broker of `IDEMQ_URL`, by default a file in `.data`. Where a broker has no inbox of its own, or none
 * with transactions, `IDEMQ_STORE_URL` names the database for inbox and outbox.
 */
export async function openConnection(): Promise<Connection> {
  const mq = await connect(brokerUrl())
  const stores = process.env.IDEMQ_STORE_URL ? await openStores(process.env.IDEMQ_STORE_URL) : {}
  return {
    mq,
    ...stores,
    async close() {
      await mq.close()
      await stores.inbox?.close()
      await stores.outbox?.close()
    },
  }
}

/** The part of a worker's options that depends on the environment. */
export function storeOptions({ inbox }: Connection): Pick<WorkerOptions, 'inbox'> {
  return inbox ? { inbox } : {}
}

/**
 * The inbox the workers use, opened for a look from outside.
 * @throws Error if the broker has none and `IDEMQ_STORE_URL` is not set
 */
export async function openInbox(): Promise<InboxStore> {
  const { inbox } = await openStores(process.env.IDEMQ_STORE_URL ?? brokerUrl())
  if (!inbox) throw new Error('the broker has no inbox: set IDEMQ_STORE_URL to a database')
  return inbox
}
