/** Where the examples run. Nothing else in them names a broker or a database. */
import { mkdirSync } from 'node:fs'
import {
  connect,
  type InboxStore,
  type Mq,
  type Outbox,
  openStores,
  type Relay,
  type RelayOptions,
  type SqlTransaction,
} from '@idemq/core'

export interface Connection {
  readonly mq: Mq
  /** Of `IDEMQ_STORE_URL`, else the broker's own. */
  readonly inbox: InboxStore<SqlTransaction>
  /** In the same database as the inbox. @throws IdemqError UNSUPPORTED where there is none */
  outbox(): Outbox<SqlTransaction>
  /** Moves what is in the outbox to the broker. @throws IdemqError UNSUPPORTED where there is none */
  relay(options?: RelayOptions): Relay
  /** Ends workers and relays first, then the connections. */
  close(): Promise<void>
}

/**
 * Connects to the broker of `IDEMQ_URL`, by default a file in `.data`. Where a broker has no inbox of its own, or none
 * with transactions, `IDEMQ_STORE_URL` names the database for inbox and outbox.
 * @throws Error if there is no inbox at all; IdemqError as `connect` and `openStores` do
 */
export async function openConnection(env: NodeJS.ProcessEnv = process.env): Promise<Connection> {
  const { IDEMQ_URL: brokerUrl, IDEMQ_STORE_URL: storeUrl } = env
  if (!brokerUrl) mkdirSync('.data', { recursive: true })
  const mq = await connect(brokerUrl || 'sqlite:./.data/examples.db')
  const stores = storeUrl ? await openStores(storeUrl) : undefined
  const inbox = stores ? stores.inbox : mq.inbox
  if (!inbox) throw new Error('this broker has no inbox of its own: set IDEMQ_STORE_URL to a database')
  return {
    mq,
    inbox: inbox as InboxStore<SqlTransaction>,
    outbox: () => mq.outbox<SqlTransaction>(stores?.outbox),
    relay: (options = {}) => mq.relay(stores?.outbox ? { ...options, outbox: stores.outbox } : options),
    async close() {
      await mq.close()
      await stores?.inbox?.close()
      await stores?.outbox?.close()
    },
  }
}
