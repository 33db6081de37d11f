/** Entries for tests of what only looks at their keys. */
import { Entry } from '../src/internal/entry.ts'
import { numberedJob } from './scene.ts'

export function entryOf(key: string, orderingKey?: string): Entry {
  const id = crypto.randomUUID()
  const time = '2026-01-01T00:00:00.000Z'
  const envelope = {
    v: 1 as const,
    job_id: id,
    name: 'numbered',
    idempotency_key: key,
    attempt: 1,
    replay: 0,
    payload: { n: 1 },
    created_at: time,
    first_enqueued_at: time,
  }
  return new Entry(
    { body: new Uint8Array(), holdUntilMs: Number.POSITIVE_INFINITY },
    orderingKey === undefined ? envelope : { ...envelope, ordering_key: orderingKey },
    { job: numberedJob(), handler: () => {}, transactional: false },
    { scope: 'default/numbered', key, fingerprint: '', jobId: id, replay: 0, attempt: 1 },
    key,
  )
}
