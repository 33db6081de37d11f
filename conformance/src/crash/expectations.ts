/** What must follow a SIGKILL at each crash point. The report of a run prints it beside what did follow. */
import type { CrashPoint } from '@idemq/core'

export interface Expectation {
  /** What the dead process leaves behind. */
  readonly leaves: string
  /** What must follow. */
  readonly follows: string
}

export const expectations: Readonly<Record<CrashPoint, Expectation>> = {
  'enqueue.before_send': {
    leaves: 'nothing: the broker never saw the job and nobody was told that it exists',
    follows: 'nothing, or the whole job if its batch had been sent before; the caller enqueues again',
  },
  'enqueue.after_send': {
    leaves: 'a stored job that its caller does not know of',
    follows: 'it runs once; enqueued again with its key, the second is deduplicated',
  },
  'relay.after_send': {
    leaves: 'a stored job whose outbox row is unmarked',
    follows: 'the row is sent again with the same copyId; the job runs once',
  },
  'worker.after_receive': {
    leaves: 'deliveries held by nobody alive',
    follows: 'they come back when their hold ends and run; no attempt is used',
  },
  'worker.after_claim': {
    leaves: 'a claim that counts as a start, without a start',
    follows: 'the claim lapses, the job runs again; one attempt is used',
  },
  'worker.in_handler': {
    leaves: 'a started handler whose effect may or may not have happened',
    follows: 'it runs again with the same keys; the provider answers a repeated effect without repeating it',
  },
  'worker.after_effect': {
    leaves: 'an effect that the inbox knows nothing of',
    follows: 'the step runs again under the same provider key: one effect',
  },
  'worker.after_memo': {
    leaves: 'a recorded step of an incomplete job',
    follows: 'the handler runs again, the step does not: its record is returned',
  },
  'worker.after_complete': {
    leaves: 'a completed job whose delivery is not acked',
    follows: 'the delivery comes back and is acked; the handler does not start',
  },
  'worker.after_retry_copy': {
    leaves: 'the original and its retry copy, the claim still held',
    follows: 'one of them runs the next attempt, the other collapses; the count goes on',
  },
  'worker.after_release': {
    leaves: 'the original and its retry copy, the floor raised',
    follows: 'the original is stale and acked; the copy runs',
  },
  'worker.after_dead_copy': {
    leaves: 'a dead letter and the original, the claim still held',
    follows: 'the original comes back; with attempts left it fails again into the same dead letter, else none is used',
  },
  'worker.after_fail': {
    leaves: 'a dead letter and the original, the claim failed',
    follows: 'the original is stale and acked; the handler does not start',
  },
  'replay.after_copy': {
    leaves: 'a dead letter and its replay copy',
    follows: 'the copy runs; replaying the letter again makes the same copy, which collapses',
  },
}
