/** What the oracle makes of deliveries and settlements. */
import { type DeliveryState, never, type RunRecord, see } from './record.ts'
import type { StatedBy } from './statements.ts'

type Said<T extends StatedBy['type']> = Extract<StatedBy, { readonly type: T }>

/** How much earlier than its time a copy may seem to arrive: two readings of one clock, rounded. */
const clockToleranceMs = 5

export function delaying({ dueAtMs }: RunRecord, delay: Said<'delaying'>): void {
  // A copy sent twice is stored once, with either time: the earlier one exonerates.
  dueAtMs.set(delay.copyId, Math.min(delay.dueAtMs, dueAtMs.get(delay.copyId) ?? never))
}

export function received(record: RunRecord, { delivery, copyId, jobId, prior, atMs }: Said<'received'>): void {
  see(record, jobId, 'a delivery')
  const due = record.dueAtMs.get(copyId)
  if (due !== undefined && atMs + clockToleranceMs < due) {
    record.findings.unexpected.push(`copy ${copyId} was delivered ${due - atMs} ms before its time`)
  }
  const state: DeliveryState = { copyId, prior, line: record.line, settlingLine: never }
  record.deliveries.set(delivery, state)
  record.lastDelivery.set(copyId, state)
}

export function settling({ deliveries, line }: RunRecord, { delivery }: Said<'settling'>): void {
  const mine = deliveries.get(delivery)
  if (mine) mine.settlingLine = line
}

export function settled(record: RunRecord, { by, delivery, status }: Said<'settled'>): void {
  const mine = record.deliveries.get(delivery)
  const last = mine && record.lastDelivery.get(mine.copyId)
  if (!mine || !last || last === mine || status !== 'settled') return
  // A count that did not rise is another message of the same copyId, not this one delivered again.
  const again = mine.prior !== undefined && last.prior !== undefined && last.prior > mine.prior
  if (again && last.line > mine.line && last.line < mine.settlingLine) {
    record.findings.staleWrites.push(`${by} settled ${mine.copyId} after it had been delivered again`)
  }
}
