import { expect, test } from 'vitest'
import { untilEmpty } from '../src/crash/drain.ts'
import { openRun } from '../src/crash/run.ts'
import { crashableBrokers, judge, oneForEachAdapter, said } from './processes.ts'

const parties = 4
const each = 50

test.each(oneForEachAdapter(await crashableBrokers()))(
  '$name: 200 duplicates at once run one handler',
  async (broker) => {
    const run = await openRun({ broker, seed: 1 })
    try {
      const workers = Array.from({ length: 4 }, () => run.start('worker'))
      // 400 ms at the provider: long enough for duplicates to meet it in every worker.
      const payload = { id: 'same', variant: 0, times: 50 }
      const burst = { kind: 'charge', payload, count: each, parties } as const
      const producers = Array.from({ length: parties }, () => run.start('producer', { burst }))
      for (const producer of producers) expect(await producer.exited).toMatchObject({ clean: true, stderr: '' })
      expect(await untilEmpty(run, 30_000)).toBe('')
      for (const worker of workers) expect(await worker.stop()).toMatchObject({ clean: true, stderr: '' })

      const { findings, jobs } = await judge(run)
      expect({ findings, jobs }).toEqual({ findings: [], jobs: parties * each })
      expect(said(run, 'started')).toHaveLength(1)
      expect(said(run, 'effect')).toHaveLength(1)
      const events = said(run, 'event')
      const completed = events.filter(({ event, detail }) => event === 'deduplicated' && detail === 'completed')
      expect(new Set(completed.map(({ jobId }) => jobId)).size).toBe(parties * each - 1)
      expect((await run.finals()).letters).toEqual([])
      const deferrals = events.filter(({ event }) => event === 'deferred').length
      console.log(`${broker.name}: ${parties * each} duplicates of one key took ${deferrals} deferrals`)
    } finally {
      await run.close()
    }
  },
)
