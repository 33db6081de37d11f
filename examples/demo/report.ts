/** What a worker process tells its parent, over the IPC channel: enough for a live picture, never used as proof. */
import type { CircuitState, Mq } from '@idemq/core'

export type FromWorker =
  | { readonly type: 'ready' }
  | { readonly type: 'circuit'; readonly circuit: string; readonly state: CircuitState }
  | ({ readonly type: 'tally' } & Tally)

export interface Tally {
  /** Handlers running now. */
  readonly inHand: number
  /** Since the last tally. */
  readonly retries: number
  readonly deduplicated: number
}

const everyMs = 100

/** Sends circuit changes at once and a tally ten times a second, if anything changed. Returns what ends it. */
export function reportToParent(mq: Mq): () => void {
  let inHand = 0
  let retries = 0
  let deduplicated = 0
  let changed = false
  const tell = (message: FromWorker): void => {
    if (process.connected) process.send?.(message)
  }
  const unsubscribe = mq.on('*', (event) => {
    switch (event.type) {
      case 'started':
        inHand++
        break
      case 'succeeded':
      case 'failed':
      case 'snoozed':
      case 'claim_lost':
        inHand--
        break
      case 'retry_scheduled':
        retries++
        break
      case 'deduplicated':
        deduplicated++
        break
      case 'circuit_opened':
      case 'circuit_half_opened':
      case 'circuit_closed':
        tell({ type: 'circuit', circuit: event.circuit, state: event.state })
        return
      default:
        return
    }
    changed = true
  })
  const timer = setInterval(() => {
    if (!changed) return
    tell({ type: 'tally', inHand, retries, deduplicated })
    retries = 0
    deduplicated = 0
    changed = false
  }, everyMs)
  return () => {
    clearInterval(timer)
    unsubscribe()
  }
}
