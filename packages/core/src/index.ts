export type { Adapter, AdapterContext, OpenUrl } from './adapter.ts'
export { type Clock, Doorbell, ManualClock, sleep, systemClock } from './clock.ts'
export type {
  Capabilities,
  Codec,
  DeadLetterRecord,
  Delivery,
  Driver,
  OpenOptions,
  Outcome,
  Outgoing,
  QueueRef,
  QueueStats,
  Receiver,
  Sent,
  Settled,
  Settlement,
  Target,
  Visit,
} from './driver.ts'
export {
  appendFailure,
  canonicalJson,
  copyIdOf,
  type DeadMark,
  type DeadReason,
  decodeEnvelope,
  type Envelope,
  encodeEnvelope,
  type Failure,
  fingerprintOf,
  reserveBytes,
  timeMs,
  wireTime,
} from './envelope.ts'
export { type ErrorCode, errorCodes, IdemqError, PermanentError, RetryAfterError } from './errors.ts'
export type { DeferReason, EventMap, Events, EventType, IdemqEvent, JobRef, Listener } from './events.ts'
export {
  type CrashPoint,
  type CrashPointMessage,
  crashPointChannel,
  crashPoints,
} from './internal/crash-points.ts'
export { type AnyJob, byJobId, defineJob, type Job, type JobOptions, type RetryPolicy } from './job.ts'
export { type Backoff, type ExponentialOptions, exponential, fixed } from './policy/backoff.ts'
export { type RetryBudget, type RetryBudgetOptions, retryBudget } from './policy/budget.ts'
export { type Circuit, type CircuitOptions, type CircuitState, circuitBreaker } from './policy/circuit.ts'
export { classifyFailure, type FailureClass } from './policy/classify.ts'
export type {
  ClaimAnswer,
  ClaimEnd,
  ClaimRef,
  ClaimRequest,
  ClaimTimes,
  Held,
  InboxStore,
  OutboxClaim,
  OutboxRow,
  OutboxStats,
  OutboxStore,
  SqlTransaction,
  StepRecord,
  StoreCapabilities,
  Token,
} from './store.ts'
