import { IdemqError, PermanentError, RetryAfterError } from '../errors.ts'

export type FailureClass = 'permanent' | 'transient'

/** HTTP client errors that pass by themselves: timeout, too early, too many requests (RFC 9110, RFC 8470, RFC 6585). */
const transientClientErrors: ReadonlySet<number> = new Set([408, 425, 429])

/**
 * The default classification: `PermanentError`, an invalid payload and HTTP 4xx but 408, 425 and 429 are permanent
 * (`status` or `statusCode` on the error, as most HTTP clients set it); everything else is transient.
 */
export function classifyFailure(error: Error): FailureClass {
  if (error instanceof PermanentError) return 'permanent'
  if (error instanceof RetryAfterError) return 'transient'
  if (error instanceof IdemqError) return error.code === 'INVALID_PAYLOAD' ? 'permanent' : 'transient'
  const { status, statusCode } = error as { status?: unknown; statusCode?: unknown }
  const code = typeof status === 'number' ? status : statusCode
  if (typeof code === 'number' && code >= 400 && code < 500 && !transientClientErrors.has(code)) return 'permanent'
  return 'transient'
}
