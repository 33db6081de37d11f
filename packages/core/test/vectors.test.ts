/**
 * The schema, the vectors and `decodeEnvelope` say the same. They part only where JSON Schema has no say: bytes that
 * are not JSON in UTF-8, and nesting.
 */
import { readFileSync } from 'node:fs'
import { createRequire } from 'node:module'
import { Ajv2020 } from 'ajv/dist/2020.js'
import fc from 'fast-check'
import { describe, expect, it } from 'vitest'
import { canonicalJson, copyIdOf, decodeEnvelope, encodeEnvelope, fingerprintOf, maxNesting } from '../src/envelope.ts'
import { seed } from './seed.ts'
import { accepted, bytesOf, fingerprints, refused } from './vectors.ts'

const schemaPath = createRequire(import.meta.url).resolve('@idemq/core/schema/envelope.v1.json')
const schema = JSON.parse(readFileSync(schemaPath, 'utf8'))
const matchesSchema = new Ajv2020({ strict: true, strictTypes: true, strictRequired: true }).compile(schema)

/** The code of its refusal, or undefined. */
function refusalOf(bytes: Uint8Array): { code: string; message: string } | undefined {
  try {
    decodeEnvelope(bytes)
    return undefined
  } catch (error) {
    return error as { code: string; message: string }
  }
}

describe('vectors', () => {
  it('has enough of each, with distinct names', () => {
    expect(accepted.length).toBeGreaterThanOrEqual(15)
    expect(refused.length).toBeGreaterThanOrEqual(30)
    const names = [...accepted, ...refused].map(({ name }) => name)
    expect(new Set(names).size).toBe(names.length)
  })

  it.each(accepted.map((vector) => [vector.name, vector] as const))('accepts: %s', (_, vector) => {
    const bytes = bytesOf(vector)
    const envelope = decodeEnvelope(bytes)
    expect(copyIdOf(envelope)).toBe(vector.copyId)
    expect(matchesSchema(envelope)).toBe(true)
    const text = Buffer.from(bytes).toString().replace('\uFEFF', '')
    expect(decodeEnvelope(encodeEnvelope(envelope))).toEqual(JSON.parse(JSON.stringify(JSON.parse(text))))
  })

  it.each(refused.map((vector) => [vector.name, vector] as const))('refuses: %s', (_, vector) => {
    const bytes = bytesOf(vector)
    const refusal = refusalOf(bytes)
    expect(refusal).toMatchObject({ name: 'IdemqError', code: vector.code })
    if (vector.field) expect(refusal?.message).toMatch(new RegExp(`^${vector.field}:`))
    let document: unknown
    try {
      document = JSON.parse(new TextDecoder('utf-8', { fatal: true }).decode(bytes))
    } catch {
      return expect(refusal?.message).toMatch(/^not JSON in UTF-8/)
    }
    if (vector.nesting === undefined) expect(matchesSchema(document)).toBe(false)
    else expect(refusal?.message).toContain(`${maxNesting} levels`)
  })

  it.each(fingerprints.map((vector) => [vector.name, vector] as const))('fingerprints: %s', (_, vector) => {
    const payload = vector.payloadText === undefined ? vector.payload : JSON.parse(vector.payloadText)
    expect(canonicalJson(payload)).toBe(vector.canonical)
    expect(fingerprintOf(payload)).toBe(vector.fingerprint)
    // Writing a copy must not change it, or a retry would meet its own key as another payload.
    expect(fingerprintOf(JSON.parse(JSON.stringify(payload)))).toBe(vector.fingerprint)
  })
})

const documents = accepted
  .filter(({ document }) => document !== undefined)
  .map(({ document }) => document as Record<string, unknown>)

const edgeValues = fc.oneof(
  fc.constantFrom(
    ...[null, true, false, 0, 1, -1, 1.5, 2, 1e9, 1e9 + 1, 2 ** 53, -0, Number.MAX_VALUE, '', 'x', 'a\0b', '\ud800'],
    ...['😀'.repeat(64), '😀'.repeat(65), 'k'.repeat(1_024), '😀'.repeat(1_025), 'n'.repeat(255), 'n'.repeat(256)],
    ...['2026-01-01T00:00:00Z', '2026-02-29T00:00:00Z', '2026-01-01T24:00:00Z', '2026-01-01', '2000-02-29T00:00:00.1Z'],
    ...[[], {}, [null], { a: 1 }, { a: 'b' }, [{}], { reason: 'x' }],
  ),
  fc.jsonValue({ maxDepth: 2 }),
  fc.string({ unit: 'binary', maxLength: 40 }),
)
const fieldNames = fc.constantFrom(
  ...[...new Set(documents.flatMap((document) => Object.keys(document)))],
  ...['__proto__', 'constructor', 'hop', 'unknown'],
)
type Change = { readonly at: number; readonly field: string; readonly value: unknown; readonly remove: boolean }
const changes = fc.array(
  fc.record<Change>({ at: fc.nat(99), field: fieldNames, value: edgeValues, remove: fc.boolean() }),
  { minLength: 1, maxLength: 3 },
)

/** Changes one field of the document, or of what lies `at` inside it. */
function changed(document: unknown, { at, field, value, remove }: Change): unknown {
  const copy = structuredClone(document) as Record<string, unknown>
  const inner = Object.values(copy).filter((v): v is Record<string, unknown> => typeof v === 'object' && v !== null)
  const target = at % 3 === 0 && inner.length > 0 ? inner[at % inner.length]! : copy
  const keys = Object.keys(target)
  const key = target !== copy && keys.length > 0 ? keys[at % keys.length]! : field
  if (remove) delete target[key]
  else Object.defineProperty(target, key, { value, enumerable: true, configurable: true, writable: true })
  return copy
}

describe('documents that were tampered with', () => {
  it('are accepted by the decoder exactly if the schema accepts them', () => {
    const seen = { accepted: 0, refused: 0 }
    fc.assert(
      fc.property(fc.nat(documents.length - 1), changes, (index, edits) => {
        const bytes = Buffer.from(JSON.stringify(edits.reduce<unknown>(changed, documents[index])))
        const refusal = refusalOf(bytes)
        const valid = matchesSchema(JSON.parse(bytes.toString()))
        seen[refusal ? 'refused' : 'accepted']++
        expect({ accepted: refusal === undefined, message: refusal?.message }).toMatchObject({ accepted: valid })
      }),
      { seed, numRuns: 20_000 },
    )
    // A test that only ever refuses, or only accepts, would agree about nothing.
    expect(Math.min(seen.accepted, seen.refused)).toBeGreaterThan(2_000)
  })

  it('of any JSON at all are judged alike', () => {
    fc.assert(
      fc.property(fc.json({ maxDepth: 4 }), (text) => {
        expect(refusalOf(Buffer.from(text)) === undefined).toBe(matchesSchema(JSON.parse(text)))
      }),
      { seed, numRuns: 2_000 },
    )
  })

  it('keep unknown fields, whatever they hold, when they are written again', () => {
    fc.assert(
      fc.property(fc.nat(documents.length - 1), fc.string(), fc.jsonValue(), (index, name, value) => {
        fc.pre(!(name in documents[index]!) && !(name in schema.properties))
        const text = `{${JSON.stringify(name)}:${JSON.stringify(value)},${JSON.stringify(documents[index]).slice(1)}`
        const { hop: _, not_before: __, ...kept } = decodeEnvelope(Buffer.from(text))
        const again = decodeEnvelope(encodeEnvelope({ ...kept, attempt: kept.attempt }))
        expect(JSON.stringify((again as unknown as Record<string, unknown>)[name])).toBe(JSON.stringify(value))
      }),
      { seed, numRuns: 2_000 },
    )
  })

  it('differ from the schema only in what is no JSON in UTF-8: no byte string crashes the decoder', () => {
    const bytes = fc.oneof(
      fc.uint8Array({ maxLength: 300 }),
      fc
        .tuple(fc.nat(accepted.length - 1), fc.nat(), fc.uint8Array({ minLength: 1, maxLength: 4 }))
        .map(([index, at, splice]) => {
          const original = Buffer.from(bytesOf(accepted[index]!))
          const from = at % original.byteLength
          return Buffer.concat([original.subarray(0, from), splice, original.subarray(from + splice.byteLength)])
        }),
    )
    fc.assert(
      fc.property(bytes, (body) => {
        const refusal = refusalOf(body)
        if (refusal) expect(refusal.code).toMatch(/^(INVALID_ENVELOPE|UNSUPPORTED_VERSION)$/)
        else expect(matchesSchema(decodeEnvelope(body))).toBe(true)
      }),
      { seed, numRuns: 10_000 },
    )
  })
})

it('has a time pattern that admits exactly the days of the calendar', () => {
  const time = new RegExp(schema.$defs.time.pattern, 'u')
  const wrong: string[] = []
  for (const year of [1600, 1700, 1900, 1999, 2000, 2023, 2024, 2025, 2026, 2028, 2100, 2400]) {
    for (let month = 0; month <= 13; month++) {
      for (let day = 0; day <= 32; day++) {
        const text = `${year}-${String(month).padStart(2, '0')}-${String(day).padStart(2, '0')}T00:00:00Z`
        const date = new Date(text)
        const real = !Number.isNaN(date.getTime()) && date.getUTCDate() === day && date.getUTCMonth() + 1 === month
        if (time.test(text) !== real) wrong.push(text)
      }
    }
  }
  expect(wrong).toEqual([])
})
