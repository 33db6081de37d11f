/** Reads `vectors/`. */
import { readFileSync } from 'node:fs'
import type { ErrorCode } from '../src/errors.ts'

interface Source {
  readonly name: string
  readonly document?: unknown
  readonly text?: string
  readonly base64?: string
  readonly nesting?: number
}
interface Accepted extends Source {
  readonly copyId: string
}
interface Refused extends Source {
  readonly code: ErrorCode
  readonly field?: string
}
interface Fingerprinted {
  readonly name: string
  readonly payload?: unknown
  readonly payloadText?: string
  readonly canonical: string
  readonly fingerprint: string
}

export const accepted: readonly Accepted[] = linesOf('accept.jsonl')
export const refused: readonly Refused[] = linesOf('refuse.jsonl')
export const fingerprints: readonly Fingerprinted[] = linesOf('fingerprints.jsonl')

function linesOf<T>(file: string): T[] {
  const lines = readFileSync(new URL(`../vectors/${file}`, import.meta.url), 'utf8')
    .trimEnd()
    .split('\n')
  return lines.map((line) => JSON.parse(line) as T)
}

/** The bytes of a vector. */
export function bytesOf({ document, text, base64, nesting }: Source): Uint8Array {
  if (base64 !== undefined) return Buffer.from(base64, 'base64')
  if (text !== undefined) return Buffer.from(text)
  if (nesting !== undefined) return Buffer.from(nested(nesting))
  return Buffer.from(JSON.stringify(document))
}

/** The least document, with a payload that brings it to `levels` brackets. */
function nested(levels: number): string {
  const least = JSON.stringify({ ...(accepted[0]!.document as object), payload: 0 })
  return least.replace('"payload":0', `"payload":${'['.repeat(levels - 1)}${']'.repeat(levels - 1)}`)
}
