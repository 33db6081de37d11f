import { describe, expect, it } from 'vitest'
import {
  appendFailure,
  canonicalJson,
  copyIdOf,
  decodeEnvelope,
  type Envelope,
  encodeEnvelope,
  type Failure,
  fingerprintOf,
  nestsDeeper,
  reserveBytes,
  timeMs,
  wireTime,
} from './envelope.ts'

const time = '2026-01-01T00:00:00.000Z'
const envelope: Envelope = {
  v: 1,
  job_id: 'id',
  name: 'job',
  idempotency_key: 'key',
  attempt: 1,
  replay: 0,
  payload: null,
  created_at: time,
  first_enqueued_at: time,
}
const failure = (message: string, changes: Partial<Failure> = {}): Failure => ({
  attempt: 1,
  at: time,
  class: 'transient',
  name: 'Error',
  message,
  ...changes,
})

describe('copyIdOf', () => {
  it('differs for every job, replay, attempt and hop', () => {
    const ids = new Set<string>()
    for (const job_id of ['a', 'a.0', 'a.0.1', 'a.0.1.0', '']) {
      for (const replay of [0, 1, 10]) {
        for (const attempt of [1, 2, 11]) {
          for (const hop of [0, 1, 11]) ids.add(copyIdOf({ ...envelope, job_id, replay, attempt, hop }))
        }
      }
    }
    expect(ids.size).toBe(5 * 3 * 3 * 3)
    expect(copyIdOf(envelope)).toBe(copyIdOf({ ...envelope, hop: 0 }))
  })
})

describe('appendFailure', () => {
  it('keeps the last five, oldest first, and changes nothing it was given', () => {
    let grown = envelope
    for (let i = 1; i <= 7; i++) grown = { ...grown, failures: appendFailure(grown, failure(`${i}`)) }
    expect(grown.failures!.map(({ message }) => message)).toEqual(['3', '4', '5', '6', '7'])
    expect(envelope.failures).toBeUndefined()
  })

  it('bounds what a failed job adds to far less than the reserve, whatever was thrown', () => {
    for (const character of ['x', '"', '\\', '\u0000', '\n', '\ud800', '😀', 'é', '\u2028', '\u007f']) {
      let grown = envelope
      const text = character.repeat(10_000)
      for (let i = 0; i < 6; i++) {
        grown = { ...grown, failures: appendFailure(grown, failure(text, { name: text })) }
      }
      const addedBytes = encodeEnvelope(grown).byteLength - encodeEnvelope(envelope).byteLength
      expect(addedBytes, JSON.stringify(character)).toBeLessThan(reserveBytes - 1_024)
      expect(decodeEnvelope(encodeEnvelope(grown)).failures).toEqual(grown.failures)
      for (const { name, message } of grown.failures!) {
        expect(message.length).toBeLessThanOrEqual(500)
        expect(name.length).toBeLessThanOrEqual(100)
        expect(message.isWellFormed()).toBe(true)
      }
    }
  })

  it('leaves a short message as it is', () => {
    expect(appendFailure(envelope, failure('card declined ☹'))).toEqual([failure('card declined ☹')])
  })
})

describe('fingerprintOf', () => {
  it('does not depend on the order of fields, at any depth, but on everything else', () => {
    const base = { a: 1, b: { c: [1, 2, { d: null }], e: 'x' } }
    const same = { b: { e: 'x', c: [1, 2, { d: null }] }, a: 1 }
    expect(fingerprintOf(same)).toBe(fingerprintOf(base))
    const others = [
      { ...base, a: 2 },
      { ...base, a: '1' },
      { ...base, b: { ...base.b, c: [2, 1, { d: null }] } },
      { ...base, extra: null },
      { a: 1 },
      [base],
      null,
      '',
      {},
      [],
    ]
    expect(new Set([base, ...others].map((value) => fingerprintOf(value))).size).toBe(others.length + 1)
  })

  it('treats a field that is undefined as absent, as JSON does', () => {
    expect(canonicalJson({ b: undefined, a: 1 })).toBe('{"a":1}')
    expect(canonicalJson([undefined])).toBe('[null]')
    expect(canonicalJson(undefined)).toBe('null')
    expect(canonicalJson(Number.NaN)).toBe('null')
  })

  it('is 43 characters of base64url', () => {
    expect(fingerprintOf({ n: 1 })).toMatch(/^[A-Za-z0-9_-]{43}$/)
  })
})

describe('wire times', () => {
  it('go there and back to the millisecond', () => {
    for (const ms of [0, 1, Date.UTC(2026, 0, 1), 253_402_300_799_999]) expect(timeMs(wireTime(ms))).toBe(ms)
    expect(wireTime(Date.UTC(2026, 0, 1, 0, 0, 0, 7))).toBe('2026-01-01T00:00:00.007Z')
  })
})

describe('nestsDeeper', () => {
  it('counts brackets that are open at once, not those in text', () => {
    const deep = (json: string, max: number): boolean => nestsDeeper(Buffer.from(json), max)
    expect(deep('[[[]]]', 3)).toBe(false)
    expect(deep('[[[]]]', 2)).toBe(true)
    expect(deep('{"a":{"b":[{}]}}', 3)).toBe(true)
    expect(deep('[[],[],[],[],[]]', 2)).toBe(false)
    expect(deep(JSON.stringify({ a: '[[[[[[{{{{', 'b"[[[[': '\\"[[[[' }), 1)).toBe(false)
    expect(deep('"\\\\"[[[[[[', 3)).toBe(true)
  })
})
