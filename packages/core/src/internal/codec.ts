import type { Codec, Driver, Outgoing } from '../driver.ts'
import { copyIdOf, decodeEnvelope, type Envelope, encodeEnvelope } from '../envelope.ts'

const jsonCodec: Codec = { encode: encodeEnvelope, decode: decodeEnvelope }

/** The format of a broker: its own, else JSON v1. */
export function codecOf(driver: Driver): Codec {
  return driver.codec ?? jsonCodec
}

/** How an envelope travels. */
export function outgoingOf(envelope: Envelope, body: Uint8Array, delayMs: number): Outgoing {
  return {
    copyId: copyIdOf(envelope),
    jobId: envelope.job_id,
    body,
    partitionKey: envelope.ordering_key ?? envelope.idempotency_key,
    ordered: envelope.ordering_key !== undefined,
    delayMs,
  }
}
