import type { EnqueueResult } from '@idemq/core'
import type { Order, OrderLine, RefusalReason } from './orders.ts'

export interface Refused {
  readonly line: number
  readonly reason: RefusalReason | 'not stored'
  readonly detail: string
}

export interface Enqueued {
  readonly orders: number
  readonly refused: readonly Refused[]
}

const batchOrders = 500

/**
 * Passes the orders among `lines` on in batches, and gathers what was refused: lines that are no orders, and orders the
 * broker did not take. What was not stored can be enqueued again, the keys make sure that nothing happens twice.
 */
export async function enqueueOrders(
  lines: AsyncIterable<OrderLine>,
  enqueue: (orders: readonly Order[]) => Promise<readonly EnqueueResult[]>,
): Promise<Enqueued> {
  let stored = 0
  const refused: Refused[] = []
  let batch: Extract<OrderLine, { status: 'order' }>[] = []
  const flush = async (): Promise<void> => {
    const results = await enqueue(batch.map(({ order }) => order))
    results.forEach((result, at) => {
      if (result.status === 'stored') stored++
      else refused.push({ line: batch[at]!.line, reason: 'not stored', detail: result.error.message })
    })
    batch = []
  }
  for await (const line of lines) {
    if (line.status === 'refused') refused.push(line)
    else if (batch.push(line) === batchOrders) await flush()
  }
  if (batch.length > 0) await flush()
  return { orders: stored, refused: refused.toSorted((a, b) => a.line - b.line) }
}

/** A line per refusal, then the sum. */
export function printEnqueued({ orders, refused }: Enqueued): void {
  for (const { line, reason, detail } of refused) console.log(`line ${line} refused: ${reason}: ${detail}`)
  console.log(`${orders} enqueued, ${refused.length} lines refused`)
}
