import { type Clock, sleep } from '../clock.ts'
import type { Capabilities, Delivery, Outcome, Receiver, Settled, Settlement } from '../driver.ts'
import { asIdemqError, type IdemqError } from '../errors.ts'
import { Batcher } from './batcher.ts'
import { callTimeoutMs, ioPauseMs, timed } from './persist.ts'

export interface HoldsOptions {
  readonly receiver: Receiver
  readonly capabilities: Capabilities
  readonly clock: Clock
  readonly leaseMs: number
  readonly onTrouble: (operation: string, error: IdemqError) => void
  /** Called when room is made. */
  readonly onRoom: () => void
}

/** The deliveries a worker has in hand: extends their leases, settles them in batches, and counts them. */
export class Holds {
  readonly #options: HoldsOptions
  readonly #held = new Map<Delivery, () => void>()
  readonly #settlements: Batcher<Settlement, Settled>
  #cancelTick: (() => void) | undefined
  #stopped = false

  constructor(options: HoldsOptions) {
    this.#options = options
    const { receiver, capabilities, clock } = options
    this.#settlements = new Batcher(capabilities.maxBatch, (batch) =>
      timed(clock, callTimeoutMs, undefined, (signal) => receiver.settle(batch, signal)),
    )
  }

  get size(): number {
    return this.#held.size
  }

  /** Takes charge of a delivery. `onLost` is called if the broker gave it to somebody else. */
  add(delivery: Delivery, onLost: () => void): void {
    this.#held.set(delivery, onLost)
    const { capabilities } = this.#options
    if (capabilities.canExtend && delivery.holdUntilMs < Number.POSITIVE_INFINITY) {
      this.#cancelTick ??= this.#scheduleTick()
    }
  }

  onLost(delivery: Delivery, listener: () => void): void {
    if (this.#held.has(delivery)) this.#held.set(delivery, listener)
  }

  /** False once the broker may have given it to somebody else. */
  isHeld(delivery: Delivery): boolean {
    return this.#held.has(delivery) && delivery.holdUntilMs > this.#options.clock.monotonicMs()
  }

  /** Settles; repeats what failed while the delivery is held. True if it took effect. */
  async settle(delivery: Delivery, outcome: Outcome, signal: AbortSignal): Promise<boolean> {
    const { clock, onTrouble } = this.#options
    for (let failures = 0; ; failures++) {
      let settled: Settled
      try {
        settled = await this.#settlements.add({ delivery, outcome })
      } catch (error) {
        settled = { status: 'failed', error: asIdemqError(error, 'BROKER_UNAVAILABLE', 'settle') }
      }
      if (settled.status === 'failed') {
        onTrouble('settle', settled.error)
        if (settled.error.retryable && !signal.aborted && this.isHeld(delivery)) {
          await sleep(clock, ioPauseMs(failures), signal)
          continue
        }
      }
      this.drop(delivery)
      return settled.status === 'settled'
    }
  }

  /** True if the broker says right now that the delivery is ours. */
  async confirm(delivery: Delivery, signal: AbortSignal): Promise<boolean> {
    const { receiver, capabilities, clock, leaseMs } = this.#options
    if (!this.isHeld(delivery)) return false
    if (!capabilities.canExtend) return true
    const [held] = await timed(clock, leaseMs / 3, signal, (s) => receiver.extend([delivery], s))
    return held?.status === 'settled'
  }

  /** Counts it no longer: settled, lost, or left to come back by itself. */
  drop(delivery: Delivery): void {
    if (this.#held.delete(delivery)) this.#options.onRoom()
  }

  lost(deliveries: readonly Delivery[]): void {
    for (const delivery of deliveries) {
      const onLost = this.#held.get(delivery)
      this.drop(delivery)
      onLost?.()
    }
  }

  stop(): void {
    this.#stopped = true
    this.#cancelTick?.()
    this.#cancelTick = undefined
  }

  #scheduleTick(): (() => void) | undefined {
    if (this.#stopped) return undefined
    return this.#options.clock.schedule(() => void this.#tick(), this.#options.leaseMs / 3)
  }

  async #tick(): Promise<void> {
    const { receiver, capabilities, clock, leaseMs, onTrouble } = this.#options
    const soonMs = clock.monotonicMs() + (leaseMs * 3) / 4
    const due = [...this.#held.keys()].filter((delivery) => delivery.holdUntilMs < soonMs)
    for (let from = 0; from < due.length; from += capabilities.maxBatch) {
      const batch = due.slice(from, from + capabilities.maxBatch)
      try {
        // Late renewals are as bad as none: who is lost must hear of it within the lease.
        const answers = await timed(clock, leaseMs / 3, undefined, (signal) => receiver.extend(batch, signal))
        this.lost(batch.filter((_, i) => answers[i]?.status === 'lost'))
      } catch (error) {
        onTrouble('extend leases', asIdemqError(error, 'BROKER_UNAVAILABLE', 'extend leases'))
      }
    }
    this.lost([...this.#held.keys()].filter((delivery) => delivery.holdUntilMs <= clock.monotonicMs()))
    this.#cancelTick = this.#held.size > 0 ? this.#scheduleTick() : undefined
  }
}
