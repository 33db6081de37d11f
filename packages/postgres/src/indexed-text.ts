import { createHash } from 'node:crypto'

/** An entry of an index holds 2,704 bytes, and some have other columns too. */
const longestBytes = 1_024

/**
 * A key as an index can hold it: a text of more than 1,024 bytes is replaced by its hash. One function for all that
 * write or look up the same column.
 */
export function indexedText(text: string): string {
  // Three bytes at most for a UTF-16 unit: no need to count those of a short one.
  if (text.length * 3 <= longestBytes || Buffer.byteLength(text) <= longestBytes) return text
  return `sha256:${createHash('sha256').update(text).digest('hex')}`
}
