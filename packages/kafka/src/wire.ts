/** How a message travels as a record: its body is the value, its partition key the key, the rest are headers. */
import type { Outgoing } from '@idemq/core'
import type { KafkaRecord, NewRecord } from './client.ts'

/** Epoch milliseconds before which the copy may not be delivered. */
const dueHeader = 'idemq-due'
const orderedHeader = 'idemq-ordered'
/** For people who look at the topic. */
const copyHeader = 'idemq-copy'

export function recordOf({ copyId, partitionKey, body, ordered, delayMs }: Outgoing, nowMs: number): NewRecord {
  return {
    key: Buffer.from(partitionKey),
    value: bytesOf(body),
    headers: {
      [copyHeader]: copyId,
      ...(ordered && { [orderedHeader]: '1' }),
      ...(delayMs > 0 && { [dueHeader]: String(Math.ceil(nowMs + delayMs)) }),
    },
  }
}

/** A dead letter is found by its copyId: that is its key, and a record without value removes it. */
export function deadRecordOf(copyId: string, body: Uint8Array | null): NewRecord {
  return { key: Buffer.from(copyId), value: body && bytesOf(body), headers: {} }
}

/** 0 where it may be delivered at any time. */
export function dueMsOf({ headers }: NewRecord): number {
  const dueMs = Number(headers[dueHeader] ?? 0)
  return Number.isFinite(dueMs) ? dueMs : 0
}

/** What it must be alone in, or `undefined`. */
export function laneOf({ key, headers }: NewRecord): string | undefined {
  return headers[orderedHeader] === undefined ? undefined : (key?.toString('latin1') ?? '')
}

export function sizeOf({ key, value }: Pick<KafkaRecord, 'key' | 'value'>): number {
  // With what a record takes beside them: lengths, offsets, our headers.
  return (key?.byteLength ?? 0) + (value?.byteLength ?? 0) + 300
}

/** The same bytes as the client takes them, uncopied. */
function bytesOf({ buffer, byteOffset, byteLength }: Uint8Array): Buffer {
  return Buffer.from(buffer, byteOffset, byteLength)
}
