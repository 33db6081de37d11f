import { systemClock } from '@idemq/core'
import { expect, it } from 'vitest'
import { memory, openUrl } from './options.ts'

const { signal } = new AbortController()
const context = { clock: systemClock }
const queue = { name: 'orders', group: 'default' }
const letter = { copyId: 'a', jobId: 'a', body: Buffer.from('a'), partitionKey: 'a', ordered: false, delayMs: 0 }

it('opens one memory per name, which outlives its handles, and a fresh one without a name', async () => {
  const first = await openUrl(new URL('memory:shop'), context)
  await first.driver.declare(queue, 'create', signal)
  await first.driver.send(queue, [letter], signal)
  await first.driver.close()
  await first.inbox!.close()
  const second = await openUrl(new URL('memory:shop'), context)
  expect((await second.driver.stats(queue, signal)).ready).toBe(1)
  expect(await second.inbox!.purge(1, signal)).toBe(0)
  const fresh = await openUrl(new URL('memory:'), context)
  await expect(fresh.driver.stats(queue, signal)).rejects.toMatchObject({ code: 'QUEUE_MISSING' })
})

it('refuses URLs and options it does not know', async () => {
  await expect(openUrl(new URL('memory://host/x'), context)).rejects.toMatchObject({ code: 'INVALID_URL' })
  await expect(openUrl(new URL('memory:?size=1'), context)).rejects.toMatchObject({ code: 'INVALID_OPTION' })
  for (const maxBodyBytes of [1_000, 40_000.5, Number.NaN, Number.POSITIVE_INFINITY]) {
    expect(() => memory({ maxBodyBytes })).toThrow(expect.objectContaining({ code: 'INVALID_OPTION' }))
  }
})
