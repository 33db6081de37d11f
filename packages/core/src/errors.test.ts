import { expect, it } from 'vitest'
import { asError, asIdemqError, errorCodes, IdemqError, PermanentError, RetryAfterError } from './errors.ts'

it('has one class with a closed list of codes, each explained, and keeps the cause', () => {
  for (const [code, meaning] of Object.entries(errorCodes)) {
    expect(code).toMatch(/^[A-Z][A-Z_]+$/)
    expect(meaning).toMatch(/^.{20,}\.$/)
  }
  const cause = new Error('beneath')
  const error = new IdemqError('BROKER_BUSY', 'above', cause)
  expect([error.name, error.code, error.message, error.cause, error.retryable]).toEqual([
    'IdemqError',
    'BROKER_BUSY',
    'above',
    cause,
    true,
  ])
  expect(error).toBeInstanceOf(Error)
  expect('cause' in new IdemqError('CLOSED', 'x')).toBe(false)
})

it('says which errors the same call may survive', () => {
  const retryable = Object.keys(errorCodes).filter((code) => new IdemqError(code as 'CLOSED', '').retryable)
  expect(retryable).toEqual([
    'BROKER_BUSY',
    'BROKER_UNAVAILABLE',
    'BROKER_FULL',
    'BROKER_READ_ONLY',
    'SEND_UNKNOWN',
    'TIMEOUT',
  ])
})

it('gives handlers two errors to throw', () => {
  expect(new PermanentError('declined').name).toBe('PermanentError')
  expect(new RetryAfterError(1_500)).toMatchObject({ retryAfterMs: 1_500, message: 'retry after 1500 ms' })
  const cause = new Error('429')
  expect(new RetryAfterError(1, 'slow down', { cause })).toMatchObject({ message: 'slow down', cause })
})

it('makes an Error of anything, and leaves one as it is', () => {
  const error = new TypeError('as it is')
  expect(asError(error)).toBe(error)
  const hostile = new Proxy(new Error('x'), {
    get() {
      throw new Error('gotcha')
    },
  })
  for (const thrown of [
    undefined,
    null,
    'text',
    7,
    Symbol('s'),
    Object.create(null),
    hostile,
    { message: 'no Error' },
  ]) {
    const made = asError(thrown)
    expect(made).toMatchObject({ name: 'IdemqError', code: 'HANDLER_FAILED' })
    expect(made.message).toMatch(/^a handler threw (undefined|object|string|number|symbol)/)
    expect((made as IdemqError).cause).toBe(thrown)
  }
})

it('wraps what is no error of ours, and leaves ours as they are', () => {
  const ours = new IdemqError('UNAUTHORIZED', 'no')
  expect(asIdemqError(ours, 'BROKER_UNAVAILABLE', 'receive')).toBe(ours)
  const cause = new Error('ECONNRESET')
  const wrapped = asIdemqError(cause, 'BROKER_UNAVAILABLE', 'receive')
  expect(wrapped).toMatchObject({ code: 'BROKER_UNAVAILABLE', message: 'receive: ECONNRESET', cause })
  expect(asIdemqError('text', 'TIMEOUT', 'settle').message).toBe('settle: text')
})
