export type { Adapter, AdapterContext, OpenUrl } from './adapter.ts'
export {
  type CallOptions,
  type ConnectOptions,
  connect,
  type EnqueueResult,
  Mq,
} from './client.ts'
export { type Clock, Doorbell, ManualClock, sleep, systemClock } from './clock.ts'
export { type AdapterLoaders, openStores } from './connect-adapter.ts'
export type {
  DeadLetter,
  DeadLetterFilter,
  DeadLetterGroup,
  DeadLetters,
  ReplayOptions,
  ReplayResult,
} from './dead-letters.ts'
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
export { noInbox } from './inbox.ts'
export type { EnqueueOptions } from './internal/composer.ts'
export {
  type CrashPoint,
  type CrashPointMessage,
  crashPointChannel,
  crashPoints,
} from './internal/crash-points.ts'
export type { JobContext, StepContext } from './internal/job-run.ts'
export { type AnyJob, byJobId, defineJob, type Job, type JobOptions, type RetryPolicy } from './job.ts'
export type { Enqueued, Outbox, Relay, RelayOptions } from './outbox.ts'
export { type Backoff, type ExponentialOptions, exponential, fixed } from './policy/backoff.ts'
export { type RetryBudget, type RetryBudgetOptions, retryBudget } from './policy/budget.ts'
export {
  type Circuit,
  type CircuitOptions,
  type CircuitOutcome,
  type CircuitPass,
  type CircuitState,
  circuitBreaker,
} from './policy/circuit.ts'
export { classifyFailure, type FailureClass } from './policy/classify.ts'
export { packageOfScheme } from './registry.ts'
export type { QueueStatus } from './status.ts'
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
export { type TestQueue, testQueue } from './testing.ts'
export type { Handler, StopOptions, TransactionalHandler, Worker, WorkerOptions } from './worker.ts'
