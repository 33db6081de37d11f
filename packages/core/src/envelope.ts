/**
 * The wire format, v1: one JSON document, the same on every broker. `schema/envelope.v1.json` is its JSON Schema and
 * `vectors/` holds documents every implementation must accept or refuse. Fields unknown here survive a round trip.
 */
import { hash } from 'node:crypto'
import { IdemqError } from './errors.ts'

/** One failed attempt, bounded so that a failed job always still fits its broker. */
export interface Failure {
  readonly attempt: number
  /** RFC 3339, UTC. */
  readonly at: string
  readonly class: 'permanent' | 'transient'
  readonly name: string
  readonly message: string
}

/** Why a job was dead-lettered. */
export type DeadReason =
  /** The handler, `classify` or the schema said that retrying cannot help. */
  | 'permanent'
  /** `maxAttempts` starts are used up. */
  | 'exhausted'
  /** The payload does not match the job's schema. */
  | 'invalid_payload'
  /** The same key is claimed or completed with another payload. */
  | 'key_mismatch'
  /** No worker knew the job's name for 15 minutes. */
  | 'unknown_job'
  /** `expires_at` passed before it started. */
  | 'expired'
  /** Delivered a thousand times without ever being claimed. */
  | 'delivery_limit'
  /** Not an envelope; stored byte for byte. */
  | 'malformed'
  /** An envelope version unknown here; stored byte for byte. */
  | 'unsupported_version'

export interface DeadMark {
  readonly reason: DeadReason
  readonly at: string
  readonly queue: string
  readonly group: string
}

/** The document itself, in the names of the wire. Times are RFC 3339 in UTC with milliseconds. */
export interface Envelope {
  readonly v: 1
  /** UUIDv7. */
  readonly job_id: string
  readonly name: string
  /** Names the business action, never the delivery. */
  readonly idempotency_key: string
  /** 1 = first. */
  readonly attempt: number
  /** +1 each time a dead job is replayed. */
  readonly replay: number
  /** Copies made of this attempt without starting it (deferrals, hops of a long delay). Absent = 0. */
  readonly hop?: number
  readonly payload: unknown
  /** When this series of attempts began: enqueue or replay. */
  readonly created_at: string
  readonly first_enqueued_at: string
  readonly not_before?: string
  readonly expires_at?: string
  readonly ordering_key?: string
  readonly correlation_id?: string
  readonly causation_id?: string
  readonly traceparent?: string
  readonly tracestate?: string
  readonly headers?: Readonly<Record<string, string>>
  /** The last few, oldest first. */
  readonly failures?: readonly Failure[]
  /** Since when no worker has known the job's name; absent where one did. */
  readonly unknown_since?: string
  /** Present while the job is a dead letter. */
  readonly dead?: DeadMark
}

/** Kept free below a broker's limit at enqueue, in bytes, so that failures and the dead mark always fit. */
export const reserveBytes: number = 16 * 1024

const maxFailures = 5
const maxFailureNameLength = 100
const maxFailureMessageLength = 500

/** Unique per (job, replay, attempt, hop): names one copy on any transport. */
export function copyIdOf(envelope: Envelope): string {
  return `${envelope.job_id}.${envelope.replay}.${envelope.attempt}.${envelope.hop ?? 0}`
}

export function encodeEnvelope(envelope: Envelope): Uint8Array {
  return Buffer.from(JSON.stringify(envelope))
}

/** Deeper documents are refused: what one implementation can parse, another one's stack could not write again. */
export const maxNesting: number = 1_000

/** Whether `json` has more than `maxDepth` brackets open at once. */
export function nestsDeeper(json: Uint8Array, maxDepth: number): boolean {
  if (json.byteLength <= 2 * maxDepth) return false
  let depth = 0
  let quoted = false
  for (let i = 0; i < json.byteLength; i++) {
    const byte = json[i]
    if (byte === 0x22) quoted = !quoted
    else if (quoted) i += byte === 0x5c ? 1 : 0
    else if ((byte === 0x5b || byte === 0x7b) && ++depth > maxDepth) return true
    else if (byte === 0x5d || byte === 0x7d) depth--
  }
  return false
}

const utf8 = new TextDecoder('utf-8', { fatal: true })

/**
 * @throws IdemqError INVALID_ENVELOPE naming the field, or UNSUPPORTED_VERSION. Deterministic: the same bytes are
 * refused for the same reason everywhere, so a dead letter needs no reason beside its bytes.
 */
export function decodeEnvelope(body: Uint8Array): Envelope {
  if (nestsDeeper(body, maxNesting)) {
    throw new IdemqError('INVALID_ENVELOPE', `nested deeper than ${maxNesting} levels`)
  }
  let document: unknown
  try {
    document = JSON.parse(utf8.decode(body))
  } catch (cause) {
    throw new IdemqError('INVALID_ENVELOPE', `not JSON in UTF-8: ${(cause as Error).message}`, cause)
  }
  if (typeof document !== 'object' || document === null || Array.isArray(document)) {
    throw new IdemqError('INVALID_ENVELOPE', 'not a JSON object')
  }
  const version = (document as { v?: unknown }).v
  if (version !== 1) {
    if (Number.isInteger(version)) throw new IdemqError('UNSUPPORTED_VERSION', `envelope version ${version}, known: 1`)
    throw new IdemqError('INVALID_ENVELOPE', 'v: must be 1')
  }
  const field = invalidField(document as Record<string, unknown>)
  if (field) throw new IdemqError('INVALID_ENVELOPE', field)
  return document as Envelope
}

function invalidField(e: Record<string, unknown>): string | undefined {
  if (!isText(e.job_id, 128)) return `job_id: ${textRule(128)}`
  if (!isText(e.name, 255)) return `name: ${textRule(255)}`
  if (!isText(e.idempotency_key, 1024)) return `idempotency_key: ${textRule(1024)}`
  if (!isCount(e.attempt, 1)) return 'attempt: must be an integer from 1'
  if (!isCount(e.replay, 0)) return 'replay: must be an integer from 0'
  if (e.hop !== undefined && !isCount(e.hop, 0)) return 'hop: must be an integer from 0'
  if (!('payload' in e)) return 'payload: is missing'
  if (!isTime(e.created_at)) return 'created_at: must be an RFC 3339 time'
  if (!isTime(e.first_enqueued_at)) return 'first_enqueued_at: must be an RFC 3339 time'
  if (e.not_before !== undefined && !isTime(e.not_before)) return 'not_before: must be an RFC 3339 time'
  if (e.expires_at !== undefined && !isTime(e.expires_at)) return 'expires_at: must be an RFC 3339 time'
  if (e.unknown_since !== undefined && !isTime(e.unknown_since)) return 'unknown_since: must be an RFC 3339 time'
  for (const name of ['ordering_key', 'correlation_id', 'causation_id', 'traceparent', 'tracestate']) {
    if (e[name] !== undefined && !isText(e[name], 1024)) return `${name}: ${textRule(1024)}`
  }
  if (e.headers !== undefined && !isHeaders(e.headers)) return 'headers: must be an object of strings'
  if (e.failures !== undefined && !(Array.isArray(e.failures) && e.failures.every(isFailure))) {
    return 'failures: must be a list of { attempt, at, class, name, message }'
  }
  if (e.dead !== undefined && !isDeadMark(e.dead)) return 'dead: must be { reason, at, queue, group }'
  return undefined
}

/**
 * A string of 1 to `maxLength` code points without NUL and lone surrogates: what every store can keep apart and every
 * language can read.
 */
export function isText(value: unknown, maxLength: number): value is string {
  if (typeof value !== 'string' || value.length < 1) return false
  // UTF-16 has at most two units for one code point: count only where it matters.
  const fits = value.length <= maxLength || (value.length <= 2 * maxLength && [...value].length <= maxLength)
  return fits && value.isWellFormed() && !value.includes('\0')
}

/** What {@link isText} demands, in words. */
export function textRule(maxLength: number): string {
  return `must have 1 to ${maxLength} characters, none of them NUL or half of a surrogate pair`
}

function isCount(value: unknown, min: number): boolean {
  return Number.isInteger(value) && (value as number) >= min && (value as number) <= 1_000_000_000
}

/** RFC 3339 with the days a month has; `schema/envelope.v1.json` has the same pattern. No leap seconds, no 24:00. */
const rfc3339 =
  /^(\d{4}-((0[13578]|1[02])-(0[1-9]|[12]\d|3[01])|(0[469]|11)-(0[1-9]|[12]\d|30)|02-(0[1-9]|1\d|2[0-8]))|(\d\d(0[48]|[2468][048]|[13579][26])|([02468][048]|[13579][26])00)-02-29)T([01]\d|2[0-3]):[0-5]\d:[0-5]\d(\.\d{1,9})?(Z|[+-]([01]\d|2[0-3]):[0-5]\d)$/

function isTime(value: unknown): boolean {
  return typeof value === 'string' && rfc3339.test(value)
}

export function isHeaders(value: unknown): value is Record<string, string> {
  if (typeof value !== 'object' || value === null || Array.isArray(value)) return false
  return Object.values(value).every((v) => typeof v === 'string')
}

function isFailure(value: unknown): boolean {
  if (typeof value !== 'object' || value === null) return false
  const f = value as Record<string, unknown>
  return (
    isCount(f.attempt, 1) &&
    isTime(f.at) &&
    (f.class === 'permanent' || f.class === 'transient') &&
    typeof f.name === 'string' &&
    typeof f.message === 'string'
  )
}

function isDeadMark(value: unknown): boolean {
  if (typeof value !== 'object' || value === null) return false
  const d = value as Record<string, unknown>
  return typeof d.reason === 'string' && isTime(d.at) && typeof d.queue === 'string' && typeof d.group === 'string'
}

/** Epoch milliseconds of a wire time. */
export function timeMs(time: string): number {
  return Date.parse(time)
}

/** A hundred years: what a wire time and every broker's arithmetic can hold. */
export const longestDelayMs: number = 100 * 365 * 24 * 3_600_000

/** The wire form of epoch milliseconds. */
export function wireTime(epochMs: number): string {
  return new Date(epochMs).toISOString()
}

/** `failures` with one more, bounded in number and length. */
export function appendFailure(envelope: Envelope, failure: Failure): readonly Failure[] {
  const bounded: Failure = {
    ...failure,
    name: bound(failure.name, maxFailureNameLength),
    message: bound(failure.message, maxFailureMessageLength),
  }
  return [...(envelope.failures ?? []), bounded].slice(-maxFailures)
}

/** Cut to `maxLength`, without control characters or lone surrogates: those grow sixfold in JSON. */
function bound(text: string, maxLength: number): string {
  const cut = text.length > maxLength ? `${text.slice(0, maxLength - 1)}…` : text
  // biome-ignore lint/suspicious/noControlCharactersInRegex: they are what is replaced
  return cut.replace(/[\u0000-\u001f\u007f]/g, ' ').toWellFormed()
}

/**
 * A hash of a JSON value that does not depend on the order of its fields. SHA-256 over JSON with sorted keys,
 * base64url, as any language can compute it.
 */
export function fingerprintOf(value: unknown): string {
  return hash('sha256', canonicalJson(value), 'base64url')
}

/** JSON with the keys of every object sorted by UTF-16 code units and no white space (as RFC 8785 orders them). */
export function canonicalJson(value: unknown): string {
  if (typeof value !== 'object' || value === null) return JSON.stringify(value) ?? 'null'
  if (Array.isArray(value)) return `[${value.map(canonicalJson).join(',')}]`
  const parts: string[] = []
  for (const key of Object.keys(value).sort()) {
    const field = (value as Record<string, unknown>)[key]
    if (field !== undefined) parts.push(`${JSON.stringify(key)}:${canonicalJson(field)}`)
  }
  return `{${parts.join(',')}}`
}
