/**
 * Writes orders.jsonl and stock.json, the same bytes every time. The file is what a shop gets in real life: customers
 * who click twice, some with another amount, cards that are declined, lines that are no orders, and too little stock.
 *
 * Run: node --conditions=idemq-source data/generate.ts
 */
import { writeFileSync } from 'node:fs'
import { seededRandom } from '../seeded-random.ts'
import type { Order } from './orders.ts'

const orderCount = 2_000
const customerCount = 600
const declinedShare = 0.025
const doubleClickShare = 0.06
const otherAmountCount = 12

const priceCents: Record<string, number> = {
  'tea-pot': 3_490,
  'tea-cup': 790,
  kettle: 4_950,
  'milk-jug': 1_250,
  'sugar-bowl': 990,
  tray: 2_190,
  strainer: 650,
  caddy: 1_590,
  cosy: 1_890,
  timer: 1_290,
  scale: 2_990,
  whisk: 1_450,
}
const skus = Object.keys(priceCents)
/** SKUs of which there is less than the orders ask for. */
const scarceSkus = new Set(['kettle', 'cosy', 'whisk'])

const random = seededRandom('orders')
const below = (limit: number): number => Math.floor(random() * limit)
const pick = <T>(from: readonly T[]): T => from[below(from.length)]!

const lines: string[] = []
const demand = new Map<string, number>()
/** Anywhere from right behind the last line to a few lines before it. */
const insertNearEnd = (line: string): void => void lines.splice(lines.length - below(4), 0, line)

const orders: Order[] = []
for (let n = 1; n <= orderCount; n++) {
  const sku = pick(skus)
  const quantity = 1 + below(3)
  const customer = String(1 + below(customerCount)).padStart(4, '0')
  const order: Order = {
    orderId: `order-${String(n).padStart(5, '0')}`,
    paymentAttempt: random() < 0.05 ? 2 : 1,
    amountCents: priceCents[sku]! * quantity,
    card: random() < declinedShare ? `card_expired_${String(n).padStart(5, '0')}` : `card_ok_${customer}`,
    sku,
    quantity,
    email: `customer-${customer}@example.com`,
  }
  orders.push(order)
  demand.set(sku, (demand.get(sku) ?? 0) + quantity)
  lines.push(JSON.stringify(order))
  if (random() < doubleClickShare) insertNearEnd(JSON.stringify(order))
}

const indexOf = (order: Order): number => lines.indexOf(JSON.stringify(order))

/** The customer clicked, changed a voucher, and clicked again: same order, same attempt, another amount. */
const paying = orders.filter(({ card, amountCents }) => card.startsWith('card_ok') && amountCents > 1_000)
for (let n = 0; n < otherAmountCount; n++) {
  const order = paying[Math.floor(((n + random()) * paying.length) / otherAmountCount)]!
  lines.splice(indexOf(order) + 1, 0, JSON.stringify({ ...order, amountCents: order.amountCents - 500 }))
}

const refused = (n: number): Order => ({ ...pick(paying), orderId: `order-bad-${String(n).padStart(2, '0')}` })
const insertAnywhere = (line: string): void => void lines.splice(below(lines.length + 1), 0, line)
for (let n = 1; n <= 16; n++) {
  const text = JSON.stringify(refused(n))
  insertAnywhere(n % 4 === 0 ? `# ${text.slice(0, 40)}` : text.slice(0, 20 + below(text.length - 20)))
}
for (let n = 17; n <= 28; n++) {
  insertAnywhere(JSON.stringify({ ...refused(n), [n % 2 ? 'voucherCode' : 'ammountCents']: n % 2 ? 'TEA5' : 500 }))
}
const amounts: readonly unknown[] = [-500, 0, 12.5, '3490', null, 1e12]
for (let n = 29; n <= 40; n++) {
  insertAnywhere(JSON.stringify({ ...refused(n), amountCents: amounts[n % amounts.length] }))
}

const stock = Object.fromEntries(
  skus.map((sku) => [sku, Math.floor(demand.get(sku)! * (scarceSkus.has(sku) ? 0.7 : 1.2))]),
)
writeFileSync(new URL('orders.jsonl', import.meta.url), `${lines.join('\n')}\n`)
writeFileSync(new URL('stock.json', import.meta.url), `${JSON.stringify(stock, null, 2)}\n`)
console.log(`${lines.length} lines, ${orderCount} orders; stock of ${skus.length} SKUs`)
