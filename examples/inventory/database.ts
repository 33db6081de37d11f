/** Set-up and inspection of the tables, outside any job and whatever database the inbox lives in. */
import { randomUUID } from 'node:crypto'
import { readFileSync } from 'node:fs'
import { IdemqError, type InboxStore, type SqlTransaction } from '@idemq/core'

/** SKU → pieces. */
export type Stock = Readonly<Record<string, number>>

export interface Reservation {
  readonly orderId: string
  readonly sku: string
  readonly quantity: number
}

export function initialStock(): Stock {
  return JSON.parse(readFileSync(new URL('../data/stock.json', import.meta.url), 'utf8'))
}

/** Creates what is missing and puts `stock` on the shelves. SKUs that are there already keep what they have. */
export async function prepareInventory(inbox: InboxStore<SqlTransaction>, stock: Stock): Promise<void> {
  const schema = readFileSync(new URL('schema.sql', import.meta.url), 'utf8')
  await inInboxDatabase(inbox, async (tx) => {
    for (const statement of schema.replace(/^--.*$/gm, '').split(';')) {
      if (statement.trim() !== '') await tx.query(statement)
    }
    for (const [sku, available] of Object.entries(stock)) {
      await tx.query('INSERT INTO stock (sku, available) VALUES ($1, $2) ON CONFLICT (sku) DO NOTHING', [
        sku,
        available,
      ])
    }
  })
}

/** A delivery arrived. */
export async function addStock(inbox: InboxStore<SqlTransaction>, sku: string, pieces: number): Promise<void> {
  await inInboxDatabase(inbox, (tx) =>
    tx.query('UPDATE stock SET available = available + $1 WHERE sku = $2', [pieces, sku]),
  )
}

/** Everything on the shelves and everything reserved, from one moment. */
export async function inspectInventory(
  inbox: InboxStore<SqlTransaction>,
): Promise<{ stock: Stock; reservations: Reservation[] }> {
  return inInboxDatabase(inbox, async (tx) => {
    const stock = await tx.query('SELECT sku, available FROM stock')
    const reservations = await tx.query('SELECT order_id, sku, quantity FROM reservations')
    return {
      stock: Object.fromEntries(stock.rows.map(({ sku, available }) => [String(sku), Number(available)])),
      reservations: reservations.rows.map((row) => ({
        orderId: String(row.order_id),
        sku: String(row.sku),
        quantity: Number(row.quantity),
      })),
    }
  })
}

const limitMs = 30_000

/**
 * Runs `work` in one transaction of the inbox's database. A program of your own would use its own client here; this
 * goes through the store contract, so that the examples need no client of any database.
 * @throws IdemqError UNSUPPORTED where the inbox has no transactions
 */
async function inInboxDatabase<T>(
  inbox: InboxStore<SqlTransaction>,
  work: (tx: SqlTransaction) => Promise<T>,
): Promise<T> {
  if (!inbox.transact) {
    throw new IdemqError('UNSUPPORTED', `inbox '${inbox.name}' has no transactions: set IDEMQ_STORE_URL to a database`)
  }
  const signal = AbortSignal.timeout(limitMs)
  const ref = { scope: 'default/inventory-administration', key: randomUUID() }
  const request = { ...ref, fingerprint: ref.key, jobId: ref.key, replay: 0, attempt: 1 }
  await inbox.prepare('create', signal)
  const [answer] = await inbox.claim([request], { leaseMs: limitMs, retentionMs: limitMs }, signal)
  if (answer?.status !== 'claimed') throw new Error(`a claim of a new key was answered '${answer?.status}'`)
  const { token } = answer
  const outcome = await inbox.transact(
    work,
    () => ({ ...ref, token, state: 'completed', floor: 1, free: false, holdMs: 0 }),
    limitMs,
    signal,
  )
  if (outcome.status === 'lost') throw new Error(`the transaction took longer than ${limitMs} ms`)
  return outcome.value
}
