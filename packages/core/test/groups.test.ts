/** Several services consume the same facts: each sees every job, and only its own retries, replays and dead letters. */
import { expect, it } from 'vitest'
import { fixed, PermanentError } from '../src/index.ts'
import { numberedJob, openScene } from './scene.ts'

it('gives every group every job, and keeps retries, keys, dead letters and replays of a group its own', async () => {
  const scene = await openScene()
  const job = numberedJob({ idempotencyKey: ({ n }) => `n ${n}`, retry: { maxAttempts: 2, backoff: fixed(1_000) } })
  const ran: string[] = []
  const of = (group: string, handler: (n: number, attempt: number) => void): ReturnType<typeof scene.worker> =>
    scene.worker({ group }).handle(job, ({ n }, { attempt }) => {
      ran.push(`${group} ${n}.${attempt}`)
      handler(n, attempt)
    })
  let mailIsBroken = true
  const workers = [
    of('billing', () => {}),
    of('mail', (n) => {
      if (n === 1 && mailIsBroken) throw new Error('smtp')
    }),
    of('search', (n, attempt) => {
      if (n === 2 && attempt === 1) throw new Error('reindexing')
    }),
  ]
  for (const worker of workers) await worker.start()
  await scene.mq.enqueueMany(job, [{ n: 1 }, { n: 2 }])
  await scene.clock.advance(10_000)
  const once = ['billing 1.1', 'billing 2.1', 'mail 2.1', 'search 1.1']
  expect(ran.toSorted()).toEqual([...once, 'mail 1.1', 'mail 1.2', 'search 2.1', 'search 2.2'].toSorted())
  const dead = async (group: string): Promise<number> => (await scene.mq.status('work', { group })).failing.dead!
  expect([await dead('billing'), await dead('mail'), await dead('search')]).toEqual([0, 1, 0])
  mailIsBroken = false
  ran.length = 0
  expect(await scene.mq.deadLetters('work', { group: 'mail' }).replay()).toMatchObject({ replayed: 1 })
  await scene.clock.advance(1_000)
  expect(ran).toEqual(['mail 1.1'])
  expect(
    scene
      .of('succeeded')
      .map(({ group }) => group)
      .toSorted(),
  ).toEqual(['billing', 'billing', 'mail', 'mail', 'search', 'search'])
})

it('refuses groups where the broker has none, for workers, letters and status alike', async () => {
  const scene = await openScene({
    driver: (driver) =>
      Object.assign(Object.create(driver), { capabilities: { ...driver.capabilities, groups: false } }),
  })
  expect(() => scene.mq.deadLetters('work', { group: 'mail' })).toThrow(
    expect.objectContaining({ code: 'UNSUPPORTED' }),
  )
  await expect(scene.mq.status('work', { group: 'mail' })).rejects.toMatchObject({ code: 'UNSUPPORTED' })
  const job = numberedJob()
  const worker = scene.worker().handle(job, () => {
    throw new PermanentError('no')
  })
  await worker.start()
  await scene.mq.enqueue(job, { n: 1 })
  await scene.drain('work')
  expect(await scene.dead('work')).toHaveLength(1)
})
