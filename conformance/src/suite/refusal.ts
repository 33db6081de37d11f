/** A refusal is an IdemqError with a code, as a rejection or as the fate of one message in its batch. */
import assert from 'node:assert/strict'
import { type ErrorCode, IdemqError } from '@idemq/core'

/** Fails unless `work` rejects with an IdemqError of one of `codes`. */
export async function expectRejection(
  what: string,
  codes: readonly ErrorCode[],
  work: () => Promise<unknown>,
): Promise<IdemqError> {
  let value: unknown
  try {
    value = await work()
  } catch (error) {
    return expectCode(what, codes, error)
  }
  assert.fail(`${what}: expected a rejection with ${codes.join(' or ')}, it resolved with ${JSON.stringify(value)}`)
}

/** Signals that are aborted already, each with the code that what it ends must reject with. */
export function abortedSignals(): { readonly signal: AbortSignal; readonly code: ErrorCode }[] {
  const late = new IdemqError('TIMEOUT', 'the caller has no more time')
  return [
    { signal: AbortSignal.abort(), code: 'ABORTED' },
    { signal: AbortSignal.abort(late), code: 'TIMEOUT' },
  ]
}

/** Fails unless `error` is an IdemqError of one of `codes`. */
export function expectCode(what: string, codes: readonly ErrorCode[], error: unknown): IdemqError {
  assert.ok(error instanceof IdemqError, `${what}: expected an IdemqError, got ${String(error)}`)
  assert.ok(codes.includes(error.code), `${what}: expected ${codes.join(' or ')}, got ${error.code}: ${error.message}`)
  return error
}
