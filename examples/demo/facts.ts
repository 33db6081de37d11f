/** Gathers what the parties say, for the comparison at the end and for the bar on the way. */
import type { InboxStore, Mq, SqlTransaction } from '@idemq/core'
import { z } from 'zod'
import type { Order } from '../data/orders.ts'
import { inspectInventory, type Stock } from '../inventory/database.ts'
import type { MailService } from '../notifications/mail-service.ts'
import type { Charge } from '../payments/ledger.ts'
import type { Dead, Facts } from './promises.ts'

export const queues = ['payments', 'inventory', 'notifications'] as const

/** What the demo put on the shelves and in the queues, under names that no other run on the same broker has. */
export interface Run {
  readonly prefix: string
  readonly orders: readonly Order[]
  readonly stock: Stock
}

export interface Sources {
  readonly mq: Mq
  readonly inbox: InboxStore<SqlTransaction>
  readonly mail: MailService
  readonly providerUrl: string
}

export async function gatherFacts(run: Run, { mq, inbox, mail, providerUrl }: Sources): Promise<Facts> {
  const isOurs = (name: string): boolean => name.startsWith(run.prefix)
  const charges = (await (await fetch(`${providerUrl}/admin/charges`)).json()) as Charge[]
  const { stock, reservations } = await inspectInventory(inbox)
  return {
    orders: run.orders,
    charges: charges.filter(({ orderId }) => isOurs(orderId)),
    stockBefore: run.stock,
    stockAfter: Object.fromEntries(Object.entries(stock).filter(([sku]) => isOurs(sku))),
    reservations: reservations.filter(({ orderId }) => isOurs(orderId)),
    messages: mail.sent().filter(({ businessId }) => isOurs(businessId)),
    dead: await deadLetters(run, mq),
  }
}

const deadPayload = z.object({
  orderId: z.string().optional(),
  businessId: z.string().optional(),
  amountCents: z.number().optional(),
})

/** The dead letters of this run. */
export async function deadLetters(run: Run, mq: Mq): Promise<Dead[]> {
  const found: Dead[] = []
  for (const queue of queues) {
    for await (const letter of mq.deadLetters(queue).scan()) {
      const payload = deadPayload.safeParse(letter.envelope?.payload)
      const { orderId, businessId, amountCents } = payload.data ?? {}
      const about = orderId ?? businessId
      if (!about?.startsWith(run.prefix)) continue
      const dead: Dead = { queue, reason: letter.reason, error: letter.error, message: letter.message, orderId: about }
      found.push(amountCents === undefined ? dead : { ...dead, amountCents })
    }
  }
  return found
}
