/**
 * Named instants at which a crash is interesting. Without a subscriber a point costs one property read; the crash
 * harness subscribes to the diagnostics channel and kills the process from within the callback.
 */
import { channel } from 'node:diagnostics_channel'

/** Every point, with what the process has and has not done there. `conformance/` has the table of what must follow. */
export const crashPoints = {
  'enqueue.before_send': 'enqueue: the job is encoded, the broker has not seen it',
  'enqueue.after_send': 'enqueue: the broker stored it, the caller does not know',
  'relay.after_send': 'relay: the broker stored an outbox row, the row is not marked',
  'worker.after_receive': 'worker: deliveries are in hand, nothing is claimed',
  'worker.after_claim': 'worker: the inbox counted a start, the handler has not run',
  'worker.in_handler': 'worker: the handler was called and has not returned',
  'worker.after_effect': 'worker: a step returned, its result is not recorded',
  'worker.after_memo': 'worker: the step is recorded, the job is not complete',
  'worker.after_complete': 'worker: the inbox says completed, the delivery is not acked',
  'worker.after_retry_copy': 'worker: the retry copy is stored, the claim is not released',
  'worker.after_release': 'worker: the claim is released, the original is not removed',
  'worker.after_dead_copy': 'worker: the dead letter is stored, the claim has not failed',
  'worker.after_fail': 'worker: the claim has failed, the original is not removed',
  'replay.after_copy': 'operator: the replay copy is stored, the dead letter is not removed',
} as const

export type CrashPoint = keyof typeof crashPoints

/** Name of the diagnostics channel. Its messages are `{ point, jobIds }`, published synchronously. */
export const crashPointChannel: string = 'idemq:crash-point'

export interface CrashPointMessage {
  readonly point: CrashPoint
  readonly jobIds: readonly string[]
}

const points = channel(crashPointChannel)

/** Marks that this process is at `point` with these jobs. `jobIds` is only evaluated if somebody listens. */
export function reach(point: CrashPoint, jobIds: () => readonly string[]): void {
  if (points.hasSubscribers) points.publish({ point, jobIds: jobIds() } satisfies CrashPointMessage)
}
