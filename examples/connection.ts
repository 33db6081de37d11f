/** Where the examples run. Nothing else in them names a broker or a database. */
import { mkdirSync } from 'node:fs'
import { join } from 'node:path'
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
  /** Of the store, where there is one, else the broker's own. */
  readonly inbox: InboxStore<SqlTransaction>
  /** In the same database as the inbox. @throws IdemqError UNSUPPORTED where there is none */
  outbox(): Outbox<SqlTransaction>
  /** Moves what is in the outbox to the broker. @throws IdemqError UNSUPPORTED where there is none */
  relay(options?: RelayOptions): Relay
  /** Ends workers and relays first, then the connections. */
  close(): Promise<void>
}

/**
 * Connects to the broker of `IDEMQ_URL`, by default a file. Where its inbox has no transactions, and the shop's tables
 * need them, inbox and outbox are in the database of `IDEMQ_STORE_URL`, by default another file. Files are in the
 * directory `IDEMQ_DATA`, by default `.data`.
 * @throws IdemqError as `connect` and `openStores` do
 */
export async function openConnection(env: NodeJS.ProcessEnv = process.env): Promise<Connection> {
  const { IDEMQ_URL: brokerUrl, IDEMQ_STORE_URL: givenStoreUrl, IDEMQ_DATA: directory = '.data' } = env
  const fileUrl = (name: string): string => {
    mkdirSync(directory, { recursive: true })
    return `sqlite:${join(directory, name)}`
  }
  const mq = await connect(brokerUrl || fileUrl('examples.db'))
  const storeUrl = givenStoreUrl || (mq.inbox?.capabilities.transactions ? undefined : fileUrl('store.db'))
  const stores = storeUrl ? await openStores(storeUrl) : undefined
  const inbox = stores ? stores.inbox : mq.inbox
  if (!inbox) throw new Error(`IDEMQ_STORE_URL names a ${storeUrl?.split(':')[0]}, which has no inbox`)
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
