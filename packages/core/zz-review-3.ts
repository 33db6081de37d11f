// database locked while a transactional job begins: attempt burned, dead-lettered, handler never called
import { connect, defineJob, any, sqlite, log, sleep, dir } from './zz-review-lib.ts'
import { DatabaseSync } from 'node:sqlite'
const path = dir() + '/q.db'; const mq = await connect(sqlite(path) as any)
const j = defineJob('j', { queue: 'q', payload: any, idempotencyKey: (p: any) => p.k, retry: { maxAttempts: 1 } })
let calls = 0; const w = mq.worker(); w.handleInTransaction(j, async () => { calls++ })
const other = new DatabaseSync(path)
mq.on('*', (e: any) => { if (['failed', 'dead_lettered', 'succeeded'].includes(e.type)) log(e.type, e.error?.code ?? e.reason ?? '') })
mq.on('started', () => { other.exec('BEGIN IMMEDIATE'); setTimeout(() => other.exec('ROLLBACK'), 2500) })
await w.start(); await mq.enqueue(j, { k: 'a' }); await sleep(4500)
log('handler calls', calls, 'dead', (await mq.status('q')).failing.dead); await w.stop(); await mq.close()
