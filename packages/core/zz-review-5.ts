// (5) a 40 s transactional handler beside an ordinary job whose effect is done (clock x20)
import { connect, defineJob, any, sqlite, log, sleep, dir, fast } from './zz-review-lib.ts'
const clock = fast(20); const mq = await connect(sqlite({ path: dir() + '/q.db', clock }) as any, { clock })
const slow = defineJob('slow', { queue: 'q', payload: any, idempotencyKey: (p: any) => p.k, timeoutMs: 60000 })
const pay = defineJob('pay', { queue: 'q', payload: any, idempotencyKey: (p: any) => p.k, timeoutMs: 60000 })
let effects = 0; const t0 = clock.monotonicMs(); const at = () => Math.round((clock.monotonicMs() - t0) / 1000) + 's'
const w = mq.worker(); w.handleInTransaction(slow, async () => { log(at(), 'tx begins'); await sleep(40000 / 20); log(at(), 'tx ends') })
w.handle(pay, async (_p, job) => { effects++; log(at(), 'effect', effects, 'attempt', job.attempt); await sleep(2000 / 20) })
mq.on('trouble', (e) => log(at(), 'trouble', e.operation, e.error.code)); mq.on('claim_lost', (e) => log(at(), 'claim_lost', e.job)); mq.on('succeeded', (e) => log(at(), 'succeeded', e.job))
await w.start(); await mq.enqueueMany(pay, [{ k: 'p' }]); await mq.enqueue(slow, { k: 's' }); await sleep(6500)
log('effects', effects); process.exit()
