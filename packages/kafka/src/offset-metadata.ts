/**
 * What a commit says besides its offset: which records beyond it are not done, and how often each was started. So a long
 * job holds nothing up but its own record, and starts are counted across crashes without an inbox.
 */

/** Kafka keeps this many characters (`offset.metadata.max.bytes`, 4096 by default). */
export const maxMetadataLength = 4_096

/**
 * With no more undone records than this every state fits: a record alone takes at most 7 bytes (a gap of up to 2^35,
 * a length, a mark), 2,800 in all, which are 3,760 characters with what comes first.
 */
export const maxUndone = 400

const version = 'i1'
/** Fits one byte. */
const highestMark = 127

/**
 * Marks of the undone records below the frontier by offset, in the order of offsets. A mark is twice the number of
 * starts that ended, plus one while a start is alive.
 */
export type Undone = Map<number, number>

/** All below `watermark` is done, so is all below `frontier` that is not in `undone`, whose first is the watermark. */
export function encodeState(watermark: number, frontier: number, undone: Undone): string {
  if (frontier === watermark) return ''
  const bytes: number[] = []
  putNumber(bytes, watermark)
  putNumber(bytes, frontier - watermark)
  let described = watermark
  let run: { start: number; end: number; mark: number } | undefined
  const endRun = (): void => {
    if (!run) return
    putNumber(bytes, run.start - described)
    putNumber(bytes, run.end - run.start)
    putNumber(bytes, run.mark)
    described = run.end
  }
  for (const [offset, exactMark] of undone) {
    const mark = boundedMark(exactMark)
    if (run && run.end === offset && run.mark === mark) run.end++
    else {
      endRun()
      run = { start: offset, end: offset + 1, mark }
    }
  }
  endRun()
  return version + Buffer.from(bytes).toString('base64url')
}

/**
 * Metadata that is not ours, or was written beside another offset (by a tool that copies groups between clusters), says
 * nothing: all from there on is undone.
 */
export function decodeState(watermark: number, metadata: string | null): { frontier: number; undone: Undone } {
  const nothing = { frontier: watermark, undone: new Map<number, number>() }
  if (!metadata?.startsWith(version)) return nothing
  const bytes = Buffer.from(metadata.slice(version.length), 'base64url')
  let at = 0
  const next = (): number => {
    let value = 0
    for (let factor = 1; ; factor *= 128) {
      const byte = bytes[at++] ?? 0
      value += (byte & 127) * factor
      if (byte < 128) return value
    }
  }
  if (next() !== watermark) return nothing
  const frontier = watermark + next()
  const undone: Undone = new Map()
  let offset = watermark
  while (at < bytes.length) {
    offset += next()
    const end = offset + next()
    const mark = next()
    if (end > frontier) return nothing
    for (; offset < end; offset++) undone.set(offset, mark)
  }
  return at === bytes.length && undone.has(watermark) ? { frontier, undone } : nothing
}

function boundedMark(mark: number): number {
  return mark <= highestMark ? mark : highestMark - 1 + (mark % 2)
}

function putNumber(bytes: number[], value: number): void {
  let rest = value
  for (; rest > 127; rest = Math.floor(rest / 128)) bytes.push((rest % 128) + 128)
  bytes.push(rest)
}
