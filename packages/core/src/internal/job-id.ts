import { v7 as uuidv7 } from 'uuid'

const bytesPerId = 16
/** Drawn many ids at a time: a call of the system's generator for each would cost more than all the rest of an id. */
const pool = new Uint8Array(bytesPerId * 256)
let used = pool.length
let lastMs = Number.NEGATIVE_INFINITY
let sequence = 0

/** A UUIDv7, greater than every one before it in this process (RFC 9562, 6.2, method 1). */
export function newJobId(): string {
  const random = nextRandom()
  const nowMs = Date.now()
  if (nowMs > lastMs) {
    lastMs = nowMs
    // From 31 random bits, so that it does not soon overflow.
    sequence = new DataView(random.buffer, random.byteOffset).getUint32(6) >>> 1
  } else if (++sequence > 0xffff_ffff) {
    lastMs++
    sequence = 0
  }
  return uuidv7({ random, msecs: lastMs, seq: sequence })
}

function nextRandom(): Uint8Array {
  if (used === pool.length) {
    crypto.getRandomValues(pool)
    used = 0
  }
  used += bytesPerId
  return pool.subarray(used - bytesPerId, used)
}
