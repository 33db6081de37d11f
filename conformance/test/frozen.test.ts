import { expect, test } from 'vitest'
import { untilEmpty } from '../src/crash/drain.ts'
import type { KindName } from '../src/crash/jobs.ts'
import { openRun } from '../src/crash/run.ts'
import { crashableBrokers, enqueue, hear, judge, oneForEachAdapter, said } from './processes.ts'

/** What the frozen worker is about to do when it goes on, and how the other has ended the job meanwhile. */
const cases: readonly { readonly about: string; readonly kind: KindName; readonly other: 'completed' | 'failed' }[] = [
  { about: 'complete', kind: 'charge', other: 'completed' },
  { about: 'requeue', kind: 'patient', other: 'completed' },
  { about: 'release', kind: 'snoozer', other: 'completed' },
  { about: 'dead-letter', kind: 'declined', other: 'failed' },
]

for (const { about, kind, other } of cases) {
  test.each(oneForEachAdapter(await crashableBrokers()))(
    `$name: a worker stopped past its lease cannot ${about}`,
    async (broker) => {
      const run = await openRun({ broker, seed: 1 })
      try {
        const jobId = await enqueue(run, kind, { id: 'frozen', variant: 0, times: 1 })
        const plan = { kind: 'freeze', point: 'worker.in_handler', hit: 1, afterMs: 0 } as const
        const first = run.start('worker', { plan })
        const { name } = first.config
        await hear(run, 'that the first stops', (s) => s.type === 'freezing' && s.by === name)

        const second = run.start('worker')
        await hear(run, `that the second has ${other} it`, ({ type, by, ...ended }) => {
          if (type !== 'ended' || by !== second.config.name || !('held' in ended) || !ended.held[0]) return false
          return said(run, 'ending').some(({ call, ends }) => call === ended.call && ends[0]?.state === other)
        })
        const stoppedAt = run.statements.length
        first.resume()
        await hear(
          run,
          'that the first lost its claim',
          (s) => s.type === 'event' && s.by === name && s.event === 'claim_lost',
        )
        expect(await first.stop()).toMatchObject({ clean: true, stderr: '' })
        expect(await untilEmpty(run, 20_000)).toBe('')
        expect(await second.stop()).toMatchObject({ clean: true, stderr: '' })

        const { findings } = await judge(run)
        expect(findings).toEqual([])
        const afterwards = run.statements.slice(stoppedAt).filter(({ by }) => by === name)
        expect(afterwards.filter((s) => s.type === 'event' && s.event === 'signal_aborted')).toMatchObject([{ jobId }])
        expect(afterwards.filter((s) => s.type === 'ended' && s.held.includes(true))).toEqual([])
        expect(afterwards.filter((s) => s.type === 'settled' && s.status === 'settled')).toEqual([])
        expect(afterwards.filter((s) => s.type === 'delaying' || s.type === 'dead_stored')).toEqual([])
      } finally {
        await run.close()
      }
    },
  )
}
