import { expect, it } from 'vitest'
import { errorCodes, IdemqError, PermanentError, RetryAfterError } from '../errors.ts'
import { classifyFailure } from './classify.ts'

const http = (status: unknown, field = 'status'): Error => Object.assign(new Error('http'), { [field]: status })

it.each<[string, Error, 'permanent' | 'transient']>([
  ['PermanentError', new PermanentError('declined'), 'permanent'],
  ['a PermanentError of another status', Object.assign(new PermanentError('x'), { status: 503 }), 'permanent'],
  ['RetryAfterError', new RetryAfterError(1_000), 'transient'],
  ['RetryAfterError of a 404', Object.assign(new RetryAfterError(1), { status: 404 }), 'transient'],
  ['any Error', new Error('?'), 'transient'],
  ['TypeError, as fetch throws for a cut connection', new TypeError('fetch failed'), 'transient'],
  ['400', http(400), 'permanent'],
  ['404', http(404), 'permanent'],
  ['422', http(422), 'permanent'],
  ['499', http(499), 'permanent'],
  ['404 as statusCode', http(404, 'statusCode'), 'permanent'],
  ['408', http(408), 'transient'],
  ['425', http(425), 'transient'],
  ['429', http(429), 'transient'],
  ['429 as statusCode', http(429, 'statusCode'), 'transient'],
  ['399', http(399), 'transient'],
  ['500', http(500), 'transient'],
  ['503', http(503), 'transient'],
  ['a status that is no number', http('404'), 'transient'],
  ['a status NaN', http(Number.NaN), 'transient'],
])('%s is %s', (_, error, expected) => {
  expect(classifyFailure(error)).toBe(expected)
})

it('has every error of idemq transient but an invalid payload', () => {
  for (const code of Object.keys(errorCodes) as (keyof typeof errorCodes)[]) {
    const expected = code === 'INVALID_PAYLOAD' ? 'permanent' : 'transient'
    expect(classifyFailure(new IdemqError(code, 'x')), code).toBe(expected)
  }
})
