// spin: all slots busy for >5s, one suspect waits
import { connect, defineJob, any, memory, log, sleep } from './zz-review-lib.ts'
import { Quarantine } from './src/internal/quarantine.ts'
let takes = 0; const orig = Quarantine.prototype.holdMs; Quarantine.prototype.holdMs = function () { takes++; return orig.call(this) }
const a = memory(); const mq = await connect(a)
const j = defineJob('j', { queue: 'q', payload: any, idempotencyKey: (p: any) => p.k, timeoutMs: 60000 })
const fp = (await import('./src/index.ts')).fingerprintOf
await a.inbox!.claim([{ scope: `default/j`, key: 's', fingerprint: fp({ k: 's', ms: 1 }), jobId: 'x', replay: 0, attempt: 1 }], { leaseMs: 1, retentionMs: 1e9 }, AbortSignal.timeout(1e4))
const w = mq.worker({ concurrency: 3, prefetch: 40 })
w.handle(j, async (p: any) => { await sleep(p.ms) })
await w.start()
await mq.enqueue(j, { k: 'l1', ms: 12000 }); await mq.enqueue(j, { k: 'l2', ms: 12000 }); await sleep(50)
await mq.enqueue(j, { k: 's', ms: 1 }); await sleep(50) // isolated, waits
// no: it takes the third slot only after 5 s; occupy it first with a job that started before
await sleep(100)
for (let i = 0; i < 10; i++) { await mq.enqueue(j, { k: 'n' + i, ms: 12000 }) }
for (let s = 0; s < 8; s++) { const t0 = takes, c = process.cpuUsage(); await sleep(1000); const d = process.cpuUsage(c); log('holdMs calls/s', takes - t0, 'cpu ms', ((d.user + d.system) / 1000) | 0) }
process.exit()
