/** The order file: one JSON document a line, read strictly. A line that is not an order is refused, never guessed at. */
import { createReadStream } from 'node:fs'
import { createInterface } from 'node:readline'
import { fileURLToPath } from 'node:url'
import { z } from 'zod'

const orderSchema = z.strictObject({
  orderId: z.string().min(1),
  /** Counts the customer's own tries to pay: a double click has the same, a second try after a decline the next. */
  paymentAttempt: z.int().min(1),
  amountCents: z.int().min(1).max(10_000_000),
  card: z.string().min(1),
  sku: z.string().min(1),
  quantity: z.int().min(1).max(100),
  email: z.email(),
})

export type Order = z.infer<typeof orderSchema>

export type RefusalReason = 'broken JSON' | 'unknown field' | 'invalid amount' | 'invalid order'

export type OrderLine =
  | { readonly status: 'order'; readonly line: number; readonly order: Order }
  | { readonly status: 'refused'; readonly line: number; readonly reason: RefusalReason; readonly detail: string }

export const ordersFile: string = fileURLToPath(new URL('orders.jsonl', import.meta.url))

/** Reads the file line by line; blank lines are skipped, line numbers count from 1. */
export async function* readOrders(path: string = ordersFile): AsyncGenerator<OrderLine> {
  let line = 0
  for await (const text of createInterface({ input: createReadStream(path), crlfDelay: Number.POSITIVE_INFINITY })) {
    line++
    if (text.trim() !== '') yield parseOrderLine(text, line)
  }
}

/** One line of the file as an order, or why it is none. Never throws. */
export function parseOrderLine(text: string, line: number): OrderLine {
  let document: unknown
  try {
    document = JSON.parse(text)
  } catch (error) {
    return { status: 'refused', line, reason: 'broken JSON', detail: (error as Error).message }
  }
  const parsed = orderSchema.safeParse(document)
  if (parsed.success) return { status: 'order', line, order: parsed.data }
  const issue = parsed.error.issues[0]!
  const path = issue.path.join('.')
  return {
    status: 'refused',
    line,
    reason: reasonOf(issue),
    detail: path ? `${path}: ${issue.message}` : issue.message,
  }
}

function reasonOf(issue: z.core.$ZodIssue): RefusalReason {
  if (issue.code === 'unrecognized_keys') return 'unknown field'
  return issue.path[0] === 'amountCents' ? 'invalid amount' : 'invalid order'
}
