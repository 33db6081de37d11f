import { connect, type Mq } from './client.ts'
import { ManualClock } from './clock.ts'

export interface TestQueue {
  /** The same client as in production, on the memory adapter. */
  readonly mq: Mq
  /** Stands still until moved: `await clock.advance(60_000)` runs everything that falls due on the way. */
  readonly clock: ManualClock
  /** Moves the clock in steps until the queue has nothing ready, delayed or in flight, or `maxMs` have passed. */
  drain(queue: string, maxMs?: number): Promise<void>
  close(): Promise<void>
}

const defaultDrainMs = 24 * 3_600_000

/**
 * A queue for tests: the same worker and policies as in production, on the memory adapter, with a clock that the test
 * moves. Nothing waits for real time.
 * @throws IdemqError MISSING_PACKAGE if @idemq/memory is not installed
 */
export async function testQueue(): Promise<TestQueue> {
  const clock = new ManualClock()
  const mq = await connect('memory:', { clock })
  return {
    mq,
    clock,
    async drain(queue, maxMs = defaultDrainMs) {
      const untilMs = clock.monotonicMs() + maxMs
      for (;;) {
        await clock.advance(0)
        const { stuck, next } = await mq.status(queue)
        if (!stuck.ready && !stuck.delayed && !stuck.inFlight) return
        const leftMs = untilMs - clock.monotonicMs()
        if (leftMs <= 0) return
        await clock.advance(
          Math.min(leftMs, Math.max(1, stuck.inFlight || stuck.ready ? 100 : (next.nextAttemptInMs ?? 100))),
        )
      }
    },
    async close() {
      const closing = mq.close()
      let closed = false
      const done = closing.finally(() => {
        closed = true
      })
      // A drain waits on the clock too.
      while (!closed) await clock.advance(1_000)
      await done
    },
  }
}
