import { expect, test } from 'vitest'
import { untilEmpty } from '../src/crash/drain.ts'
import { kinds } from '../src/crash/jobs.ts'
import { openRun } from '../src/crash/run.ts'
import { crashableBrokers, enqueue, judge, oneForEachAdapter, said } from './processes.ts'

const neighbours = 50
const { maxAttempts } = kinds.crasher.job

/** With one handler at a time the neighbours are only prefetched. With more, some run beside the killer's first start. */
const cases = [
  { concurrency: 1, mostAttempts: 1 },
  { concurrency: 8, mostAttempts: 2 },
]

for (const { concurrency, mostAttempts } of cases) {
  const title = `$name: a process-killer uses its own attempts up and ${concurrency === 1 ? 'no' : 'at most one'} other`
  test.each(oneForEachAdapter(await crashableBrokers()))(title, async (broker) => {
    const run = await openRun({ broker, seed: 1 })
    try {
      const killer = await enqueue(run, 'crasher', { id: 'killer', variant: 0, times: 0 })
      for (let i = 0; i < neighbours; i++) await enqueue(run, 'charge', { id: `${i}`, variant: 0, times: 0 })

      const options = { concurrency, prefetch: neighbours + 1, lethal: true }
      let kills = 0
      let worker = run.start('worker', options)
      const empty = untilEmpty(run, 40_000)
      for (;;) {
        const first = await Promise.race([worker.exited, empty])
        if (typeof first === 'string') break
        expect(first).toMatchObject({ killed: true })
        kills++
        worker = run.start('worker', options)
      }
      expect(await empty).toBe('')
      expect(await worker.stop()).toMatchObject({ clean: true, stderr: '' })

      const { findings } = await judge(run)
      expect(findings).toEqual([])
      const starts = said(run, 'started')
      expect(starts.filter(({ jobId }) => jobId === killer).map(({ attempt }) => attempt)).toEqual(
        Array.from({ length: maxAttempts }, (_, i) => i + 1),
      )
      expect(kills).toBe(maxAttempts)
      const { letters } = await run.finals()
      expect(letters.map(({ jobId, reason }) => ({ jobId, reason }))).toEqual([{ jobId: killer, reason: 'exhausted' }])
      const others = starts.filter(({ jobId }) => jobId !== killer)
      expect(new Set(others.map(({ jobId }) => jobId)).size).toBe(neighbours)
      expect(Math.max(...others.map(({ attempt }) => attempt))).toBeLessThanOrEqual(mostAttempts)
    } finally {
      await run.close()
    }
  })
}
