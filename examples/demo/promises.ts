/** Compares what was ordered with what others say happened: the provider's ledger, the shelves, the mail service. */
import type { DeadReason } from '@idemq/core'
import type { Order } from '../data/orders.ts'
import type { Reservation, Stock } from '../inventory/database.ts'
import type { Message } from '../notifications/mail-service.ts'
import type { Charge } from '../payments/ledger.ts'

/** A dead letter, as far as the comparison needs it. */
export interface Dead {
  readonly queue: string
  readonly reason: DeadReason
  /** Name of the last failure, or the reason where nothing failed. */
  readonly error: string
  readonly message: string
  readonly orderId: string
  /** Of a charge. */
  readonly amountCents?: number
}

export interface Facts {
  /** As enqueued: double clicks included. One payment attempt an order. */
  readonly orders: readonly Order[]
  readonly charges: readonly Charge[]
  readonly stockBefore: Stock
  readonly stockAfter: Stock
  readonly reservations: readonly Reservation[]
  readonly messages: readonly Message[]
  readonly dead: readonly Dead[]
}

export interface Verdict {
  readonly orders: number
  readonly charged: number
  readonly reserved: number
  readonly notified: number
  /** Charges, reservations and messages beyond the first of an order. */
  readonly doubled: number
  /** Orders with an effect that neither happened nor waits among the dead letters. */
  readonly lost: number
  /** Every broken promise, in words. Empty = all kept. */
  readonly broken: readonly string[]
}

export function compare(facts: Facts): Verdict {
  const { orders, charges, stockBefore, stockAfter, reservations, messages, dead } = facts
  const clicksOf = Map.groupBy(orders, ({ orderId }) => orderId)
  const chargesOf = Map.groupBy(charges, ({ orderId }) => orderId)
  const reservationsOf = Map.groupBy(reservations, ({ orderId }) => orderId)
  const messagesOf = Map.groupBy(messages, ({ businessId }) => businessId)
  const deadOf = Map.groupBy(dead, ({ queue, orderId }) => `${queue}/${orderId}`)

  const broken: string[] = []
  let doubled = 0
  let lost = 0
  const double = (times: number, what: string): void => {
    doubled += times - 1
    broken.push(`${what} ${times} times`)
  }
  const lose = (what: string): void => {
    lost++
    broken.push(what)
  }

  for (const [orderId, clicks] of clicksOf) {
    const charged = chargesOf.get(orderId) ?? []
    const deadCharges = deadOf.get(`payments/${orderId}`) ?? []
    if (charged.length > 1) double(charged.length, `${orderId} was charged`)
    for (const amountCents of new Set(clicks.map((click) => click.amountCents))) {
      const isCharged = charged.some((charge) => charge.amountCents === amountCents)
      const letters = deadCharges.filter((letter) => letter.amountCents === amountCents)
      if (!isCharged && letters.length === 0)
        lose(`${orderId} over ${amountCents} is neither charged nor a dead letter`)
      // Only one whose every answer was lost may have been charged and not know it.
      if (isCharged && letters.some(({ reason }) => reason !== 'exhausted'))
        broken.push(`${orderId} over ${amountCents} is charged and yet a dead letter`)
    }
    for (const { amountCents } of charged) {
      if (clicks.some((click) => click.amountCents === amountCents)) continue
      broken.push(`${orderId} was charged ${amountCents}, which nobody ordered`)
    }

    const { sku, quantity, email } = clicks[0]!
    const reserved = reservationsOf.get(orderId) ?? []
    const refusals = deadOf.get(`inventory/${orderId}`) ?? []
    if (reserved.length > 1) double(reserved.length, `${orderId} was reserved`)
    if (reserved.length === 0 && refusals.length === 0) lose(`${orderId} is neither reserved nor a dead letter`)
    if (reserved.length > 0 && refusals.length > 0) broken.push(`${orderId} is reserved and yet a dead letter`)
    if (reserved.some((of) => of.sku !== sku || of.quantity !== quantity)) {
      broken.push(`${orderId} was reserved other than ordered`)
    }
    if (refusals.some(({ error }) => error === 'OutOfStock') && (stockAfter[sku] ?? 0) >= quantity) {
      broken.push(`${orderId} was refused as out of stock, but ${stockAfter[sku]} of ${sku} are left`)
    }

    const told = messagesOf.get(orderId) ?? []
    if (told.length > 1) double(told.length, `${email} was told of ${orderId}`)
    if (reserved.length > 0 && told.length === 0 && !deadOf.has(`notifications/${orderId}`)) {
      lose(`${email} was never told of ${orderId}`)
    }
    if (reserved.length === 0 && told.length > 0) broken.push(`${email} was told of ${orderId}, which is not reserved`)
    if (told.some(({ recipient }) => recipient !== email)) broken.push(`somebody else was told of ${orderId}`)
  }

  for (const orderId of new Set([...chargesOf.keys(), ...reservationsOf.keys(), ...messagesOf.keys()])) {
    if (!clicksOf.has(orderId)) broken.push(`something was done for ${orderId}, which nobody ordered`)
  }
  for (const [sku, before] of Object.entries(stockBefore)) {
    const after = stockAfter[sku] ?? Number.NaN
    const taken = reservations.filter((of) => of.sku === sku).reduce((sum, { quantity }) => sum + quantity, 0)
    if (!(after >= 0)) broken.push(`stock of ${sku} is ${after}`)
    if (before - taken !== after) broken.push(`${sku}: ${before} before, ${taken} reserved, but ${after} left`)
  }
  const ofOrders = (keys: Iterable<string>): number => [...keys].filter((orderId) => clicksOf.has(orderId)).length
  return {
    orders: clicksOf.size,
    charged: ofOrders(chargesOf.keys()),
    reserved: ofOrders(reservationsOf.keys()),
    notified: ofOrders(messagesOf.keys()),
    doubled,
    lost,
    broken,
  }
}
