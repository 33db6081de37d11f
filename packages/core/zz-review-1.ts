// suspects of two queues of one worker run at once
import { connect, defineJob, any, memory, log, sleep } from './zz-review-lib.ts'
const a = memory(); const mq = await connect(a)
const J = (n: string, q: string) => defineJob(n, { queue: q, payload: any, idempotencyKey: (p: any) => p.k })
const j1 = J('j1', 'q1'), j2 = J('j2', 'q2')
await mq.enqueue(j1, { k: 'a' }); await mq.enqueue(j2, { k: 'b' })
const fp = (await import('./src/index.ts')).fingerprintOf
for (const [n, k] of [['j1', 'a'], ['j2', 'b']]) {
  // an earlier start that crashed: other job id, same key -> used=1
  await a.inbox!.claim([{ scope: `default/${n}`, key: k!, fingerprint: fp({ k }), jobId: 'x', replay: 0, attempt: 1 }], { leaseMs: 1, retentionMs: 1e9 }, AbortSignal.timeout(1e4))
}
await sleep(20)
let now = 0, max = 0
const w = mq.worker()
const h = async (_: unknown, job: any) => { now++; max = Math.max(max, now); log('start', job.name, 'attempt', job.attempt); await sleep(300); now-- }
w.handle(j1, h).handle(j2, h); await w.start(); await sleep(800); await w.stop(); await mq.close()
log('suspects at once in one process:', max)
