// (6) a deaf transactional handler: the file stays locked for ever
import { connect, defineJob, any, sqlite, log, sleep, dir, fast } from './zz-review-lib.ts'
const clock = fast(20); const path = dir() + '/q.db'; const mq = await connect(sqlite({ path, clock }) as any, { clock })
const j = defineJob('j', { queue: 'q', payload: any, idempotencyKey: (p: any) => p.k, timeoutMs: 1000 })
const w = mq.worker(); w.handleInTransaction(j, () => new Promise(() => {}))
mq.on('*', (e: any) => ['failed','dead_lettered','trouble','claim_lost','retry_scheduled'].includes(e.type) && log(e.type, e.operation ?? '', e.error?.code ?? ''))
await w.start(); await mq.enqueue(j, { k: 'a' })
await sleep(100000 / 20)
const b = await connect(sqlite({ path, clock }) as any, { clock })
await b.enqueue(j, { k: 'b' }).then(() => log('other connection wrote'), (e) => log('100 s later, another connection:', e.code))
process.exit()
