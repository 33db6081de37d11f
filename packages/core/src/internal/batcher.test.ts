import { expect, it } from 'vitest'
import { randomOf, seed } from '../../test/seed.ts'
import { Batcher } from './batcher.ts'

it('answers each item with its own result, in one flush for what came in one turn', async () => {
  const flushes: number[][] = []
  const batcher = new Batcher<number, number>(10, async (items) => {
    flushes.push(items)
    return items.map((item) => item * 2)
  })
  expect(await Promise.all([1, 2, 3].map((item) => batcher.add(item)))).toEqual([2, 4, 6])
  expect(flushes).toEqual([[1, 2, 3]])
})

it('has one flush under way at a time; what comes meanwhile is the next, in order, at most maxBatch', async () => {
  const flushes: number[][] = []
  let release = (): void => {}
  let together = 0
  const batcher = new Batcher<number, number>(3, async (items) => {
    together++
    expect(together).toBe(1)
    flushes.push(items)
    await new Promise<void>((resolve) => {
      release = resolve
    })
    together--
    return items
  })
  const results = [batcher.add(0)]
  await Promise.resolve()
  for (let item = 1; item <= 7; item++) results.push(batcher.add(item))
  for (let flush = 0; flush < 4; flush++) {
    release()
    await new Promise((resolve) => setImmediate(resolve))
  }
  expect(await Promise.all(results)).toEqual([0, 1, 2, 3, 4, 5, 6, 7])
  expect(flushes).toEqual([[0], [1, 2, 3], [4, 5, 6], [7]])
})

it('keeps a failure within its batch, whether it rejects or throws', async () => {
  const batcher = new Batcher<string, string>(2, (items) => {
    if (items.includes('throw')) throw new Error('thrown')
    if (items.includes('reject')) return Promise.reject(new Error('rejected'))
    return Promise.resolve(items)
  })
  const results = await Promise.allSettled(
    ['a', 'throw', 'b', 'c', 'reject', 'd', 'e'].map((item) => batcher.add(item)),
  )
  const said = results.map((r) => (r.status === 'fulfilled' ? r.value : (r.reason as Error).message))
  expect(said).toEqual(['thrown', 'thrown', 'b', 'c', 'rejected', 'rejected', 'e'])
  expect(await batcher.add('later')).toBe('later')
})

it('never loses a wake-up: every item of random interleavings is answered, once, in order of arrival', async () => {
  const random = randomOf(seed)
  const flushed: number[] = []
  const pause = async (): Promise<void> => {
    const turns = random.below(4)
    for (let i = 0; i < turns; i++) await Promise.resolve()
    if (random.chance(0.1)) await new Promise((resolve) => setImmediate(resolve))
  }
  const batcher = new Batcher<number, number>(5, async (items) => {
    await pause()
    flushed.push(...items)
    if (random.chance(0.1)) throw new Error('flush')
    await pause()
    return items.map((item) => -item)
  })
  let next = 0
  const answers: Promise<number | 'failed'>[] = []
  const producer = async (): Promise<void> => {
    for (let i = 0; i < 500; i++) {
      const item = next++
      answers[item] = batcher.add(item).catch(() => 'failed' as const)
      await pause()
      if (random.chance(0.2)) await answers[item]
    }
  }
  await Promise.all(Array.from({ length: 8 }, producer))
  const said = await Promise.all(answers)
  expect(said).toHaveLength(4_000)
  said.forEach((answer, item) => {
    if (answer !== 'failed') expect(answer).toBe(item === 0 ? -0 : -item)
  })
  expect(flushed).toEqual(Array.from({ length: 4_000 }, (_, item) => item))
  expect(said.filter((answer) => answer === 'failed').length).toBeGreaterThan(10)
})

it('takes many at once: results fill flush by flush, beside single items, and done is the last of them', async () => {
  const flushes: number[][] = []
  const batcher = new Batcher<number, number>(2, async (items) => {
    flushes.push(items)
    return items.map((item) => item * 2)
  })
  const many = batcher.addAll([1, 2, 3])
  const single = batcher.add(4)
  await many.done
  expect(many.results).toEqual([2, 4, 6])
  expect(await single).toBe(8)
  expect(flushes).toEqual([
    [1, 2],
    [3, 4],
  ])
  await batcher.addAll([]).done
})

it('keeps what was answered before a flush failed', async () => {
  const batcher = new Batcher<number, number>(1, async ([item]) => {
    if (item === 2) throw new Error('no')
    return [item!]
  })
  const many = batcher.addAll([1, 2])
  await expect(many.done).rejects.toThrow('no')
  expect(many.results).toEqual([1, undefined])
})
