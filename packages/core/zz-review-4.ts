// mq.enqueue and job.step within handleInTransaction (clock x20)
import { connect, defineJob, any, sqlite, log, sleep, dir, fast } from './zz-review-lib.ts'
const clock = fast(20); const mq = await connect(sqlite({ path: dir() + '/q.db', clock }) as any, { clock })
const j = defineJob('j', { queue: 'q', payload: any, idempotencyKey: (p: any) => p.k, timeoutMs: 200000 })
const o = defineJob('o', { queue: 'o', payload: any, idempotencyKey: (p: any) => p.k })
await mq.enqueue(o, { k: '0' })
const w = mq.worker(); w.handleInTransaction(j, async (p: any, job) => {
  const t = clock.monotonicMs()
  try { if (p.k === 'e') await mq.enqueue(o, { k: 'x' }); else await job.step('s', () => 1); log(p.k, 'ok') } catch (e: any) { log(p.k, 'waited ms', Math.round(clock.monotonicMs() - t), e.code, e.message); throw e }
})
await w.start(); await mq.enqueue(j, { k: 'e' }); await sleep(2500); await mq.enqueue(j, { k: 's' }).catch((e) => log('enqueue from outside failed', e.code)); await sleep(4000)
process.exit()
