/** Looking at dead letters: they stay where they are, in a stream that nobody consumes. */
import type { DeadLetterRecord, QueueRef, Visit } from '@idemq/core'
import { never } from './connection.ts'
import { deadKey, queueKey } from './keys.ts'
import { removeDeadScript } from './queue-scripts.ts'
import type { Session } from './session.ts'

type Entry = readonly [id: Buffer, fields: readonly [copyId: Buffer, body: Buffer]]

/** Letters read in one round trip. */
const pageSize = 50

/** `undefined` where the queue is missing. */
export async function scanDeadLetters(
  session: Session,
  prefix: string,
  { name, group }: QueueRef,
  visit: (letter: DeadLetterRecord) => Promise<Visit>,
  signal: AbortSignal,
): Promise<{ readonly complete: boolean } | undefined> {
  const { connection } = session
  const base = queueKey(prefix, name)
  const dead = deadKey(base, group)
  const what = `scan the dead letters of '${name}'`
  if ((await connection.call(what, signal, 'exists', [base])) === 0) return undefined
  // What is dead-lettered during the scan, such as a replay that failed again, is not part of it.
  const [last] = (await connection.call(what, signal, 'xrevrange', [dead, '+', '-', 'count', 1])) as Entry[]
  if (!last) return { complete: true }
  for (let from = '-'; ; ) {
    if (signal.aborted) return { complete: false }
    const page = (await connection.call(what, signal, 'xrange', [dead, from, last[0], 'count', pageSize])) as Entry[]
    for (const [id, [copyId, body]] of page) {
      if (signal.aborted) return { complete: false }
      const wish = await visit({ id: id.toString(), body })
      if (wish === 'stop') return { complete: false }
      if (wish === 'remove') {
        // Whoever visited counts on it, whatever was aborted meanwhile.
        await session.run(`remove a dead letter of '${name}'`, never, removeDeadScript, [base], [group, id, copyId])
      }
    }
    if (page.length < pageSize) return { complete: true }
    from = `(${page.at(-1)![0]}`
  }
}
