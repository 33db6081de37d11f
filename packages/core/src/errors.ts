/**
 * Every error of idemq is an {@link IdemqError} with a code from this closed list. Programs read `code`, people read
 * `message`: what failed, where, and what to do.
 */
export const errorCodes = {
  INVALID_OPTION: 'An option is out of range or contradicts another. Nothing was started.',
  INVALID_PAYLOAD: 'The payload does not match the schema of its job, or is not JSON. Nothing was sent.',
  INVALID_ENVELOPE: 'Bytes on the queue are not an envelope of a known shape. They are dead-lettered as they are.',
  UNSUPPORTED_VERSION: 'An envelope is of a version this release does not read. It is dead-lettered as it is.',
  BODY_TOO_LARGE: 'The encoded job exceeds what the broker takes, less the reserve for failures.',
  INVALID_URL: 'A connection URL cannot be parsed or lacks a part.',
  UNKNOWN_SCHEME: 'No adapter is known for the scheme of a URL.',
  MISSING_PACKAGE: 'The adapter for a scheme is not installed.',
  UNSUPPORTED: 'The broker or store cannot honour what was asked. Refused at set-up, never weakened.',
  INBOX_REQUIRED: 'A worker has no inbox and did not say noInbox().',
  DUPLICATE_HANDLER: 'Two handlers for one job name.',
  QUEUE_MISSING: 'The queue, or the tables it lives in, do not exist and creation was not asked for.',
  QUEUE_MISMATCH: 'The queue exists with other settings.',
  UNAUTHORIZED: 'The broker or store refused the credentials or the operation.',
  BROKER_BUSY: 'The broker or store is locked, throttled or overloaded. Retried until the call times out.',
  BROKER_UNAVAILABLE: 'The broker or store cannot be reached. Retried until the call times out.',
  BROKER_FULL: 'The broker or store has no room left.',
  BROKER_READ_ONLY: 'The broker or store accepts no writes.',
  SEND_UNKNOWN: 'The broker may have stored the job. Send again with the same jobId or idempotency key.',
  CLAIM_LOST: 'Another worker owns this job now. The handler is aborted and what it does is not recorded.',
  COMMIT_UNKNOWN: 'A commit was not confirmed and its outcome could not be read back yet. The job stays claimed.',
  TIMEOUT: 'An operation or handler did not end within its time.',
  ABORTED: 'The caller gave up through its AbortSignal, or the worker is shutting down.',
  CLOSED: 'The client, worker or driver is closed.',
  HANDLER_FAILED: 'A handler threw something that is not an Error.',
} as const

export type ErrorCode = keyof typeof errorCodes

const retryableCodes: ReadonlySet<ErrorCode> = new Set<ErrorCode>([
  'BROKER_BUSY',
  'BROKER_UNAVAILABLE',
  'BROKER_FULL',
  'BROKER_READ_ONLY',
  'SEND_UNKNOWN',
  'TIMEOUT',
])

/** The one error class of idemq. `cause` keeps what lies beneath. */
export class IdemqError extends Error {
  override readonly name: string = 'IdemqError'
  readonly code: ErrorCode
  constructor(code: ErrorCode, message: string, cause?: unknown) {
    super(message, cause === undefined ? undefined : { cause })
    this.code = code
  }
  /** True where the same call may succeed later without anybody changing anything but the broker's state. */
  get retryable(): boolean {
    return retryableCodes.has(this.code)
  }
}

/** Thrown by a handler: retrying cannot help, dead-letter the job now. */
export class PermanentError extends Error {
  override readonly name: string = 'PermanentError'
}

/** Thrown by a handler: transient, and the dependency said when to come back (HTTP `Retry-After`). */
export class RetryAfterError extends Error {
  override readonly name: string = 'RetryAfterError'
  /** Milliseconds to wait at least. The job's backoff applies where it is longer. */
  readonly retryAfterMs: number
  constructor(retryAfterMs: number, message: string = `retry after ${retryAfterMs} ms`, options?: ErrorOptions) {
    super(message, options)
    this.retryAfterMs = retryAfterMs
  }
}

/** What was thrown, as an Error whose name and message are text: a handler may throw anything. */
export function asError(thrown: unknown): Error {
  try {
    if (thrown instanceof Error && typeof thrown.name === 'string' && typeof thrown.message === 'string') return thrown
    return new IdemqError('HANDLER_FAILED', `a handler threw ${typeof thrown}: ${String(thrown)}`, thrown)
  } catch {
    return new IdemqError('HANDLER_FAILED', `a handler threw ${typeof thrown} that cannot be shown`, thrown)
  }
}

/** What was thrown, as an IdemqError: unchanged if it is one, else `code` with the original as its cause. */
export function asIdemqError(thrown: unknown, code: ErrorCode, where: string): IdemqError {
  if (thrown instanceof IdemqError) return thrown
  return new IdemqError(code, `${where}: ${thrown instanceof Error ? thrown.message : String(thrown)}`, thrown)
}
