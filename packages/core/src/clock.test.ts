import { getEventListeners } from 'node:events'
import { describe, expect, it } from 'vitest'
import { randomOf, seed } from '../test/seed.ts'
import { Doorbell, ManualClock, sleep, systemClock } from './clock.ts'

/** Whether it has resolved by now. */
async function resolved(promise: Promise<unknown>): Promise<boolean> {
  return Promise.race([promise.then(() => true), new Promise<boolean>((r) => setImmediate(() => r(false)))])
}

describe('systemClock', () => {
  it('calls back after the delay, never before, and not at all once cancelled', async () => {
    const startedAtMs = systemClock.monotonicMs()
    const cancelled = systemClock.schedule(() => {
      throw new Error('cancelled')
    }, 1)
    cancelled()
    await new Promise<void>((resolve) => systemClock.schedule(resolve, 20))
    expect(systemClock.monotonicMs() - startedAtMs).toBeGreaterThanOrEqual(19)
    expect(Math.abs(systemClock.now() - Date.now())).toBeLessThan(1_000)
  })

  it('does not fire at once for a delay that no timer of Node can hold', async () => {
    const fired: string[] = []
    const cancel = [2 ** 31, Number.POSITIVE_INFINITY].map((ms) => systemClock.schedule(() => fired.push(`${ms}`), ms))
    await new Promise((resolve) => setTimeout(resolve, 10))
    for (const c of cancel) c()
    expect(fired).toEqual([])
  })
})

describe('ManualClock', () => {
  it('stands still until moved, and fires what falls due in order, each at its own instant', async () => {
    const clock = new ManualClock(1_000)
    const fired: [string, number][] = []
    const note = (name: string) => () => fired.push([name, clock.monotonicMs()])
    clock.schedule(note('b'), 20)
    clock.schedule(note('a'), 10)
    clock.schedule(note('a2'), 10)
    clock.schedule(note('now'), -5)
    const cancel = clock.schedule(note('never'), 15)
    cancel()
    cancel()
    await clock.advance(0)
    expect(fired).toEqual([['now', 0]])
    await clock.advance(19)
    expect(fired.slice(1)).toEqual([
      ['a', 10],
      ['a2', 10],
    ])
    expect(clock.now()).toBe(1_019)
    await clock.advance(1)
    expect(fired.at(-1)).toEqual(['b', 20])
  })

  it('fires what is scheduled on the way, and lets the work it starts go on in between', async () => {
    const clock = new ManualClock()
    const at: number[] = []
    const work = async (): Promise<void> => {
      for (let i = 0; i < 5; i++) {
        await sleep(clock, 10)
        at.push(clock.monotonicMs())
      }
    }
    const done = work()
    await clock.advance(100)
    await done
    expect(at).toEqual([10, 20, 30, 40, 50])
  })
})

describe('sleep', () => {
  it('ends after its delay, or at once when its signal aborts, and leaves no listener', async () => {
    const clock = new ManualClock()
    const abort = new AbortController()
    const one = sleep(clock, 100, abort.signal)
    const two = sleep(clock, 1_000, abort.signal)
    await clock.advance(99)
    expect(await resolved(one)).toBe(false)
    await clock.advance(1)
    expect(await resolved(one)).toBe(true)
    expect(await resolved(two)).toBe(false)
    abort.abort()
    expect(await resolved(two)).toBe(true)
    expect(await resolved(sleep(clock, 1_000, abort.signal))).toBe(true)
    expect(getEventListeners(abort.signal, 'abort')).toEqual([])
  })
})

describe('Doorbell', () => {
  it('wakes everyone who waits; a ring between the look and the wait is not missed', async () => {
    const bell = new Doorbell(new ManualClock())
    const seen = bell.armed()
    const waits = [bell.wait(1_000, seen), bell.wait(1_000, seen)]
    expect(await resolved(waits[0]!)).toBe(false)
    bell.ring()
    await Promise.all(waits)
    expect(await resolved(bell.wait(1_000, seen))).toBe(true)
    expect(await resolved(bell.wait(1_000, bell.armed()))).toBe(false)
  })

  it('waits no longer than asked, and not at all for 0 ms or an aborted signal', async () => {
    const clock = new ManualClock()
    const bell = new Doorbell(clock)
    const wait = bell.wait(50, bell.armed())
    await clock.advance(49)
    expect(await resolved(wait)).toBe(false)
    await clock.advance(1)
    expect(await resolved(wait)).toBe(true)
    expect(await resolved(bell.wait(0, bell.armed()))).toBe(true)
    expect(await resolved(bell.wait(50, bell.armed(), AbortSignal.abort()))).toBe(true)
    const abort = new AbortController()
    const aborted = bell.wait(50, bell.armed(), abort.signal)
    abort.abort()
    expect(await resolved(aborted)).toBe(true)
    expect(getEventListeners(abort.signal, 'abort')).toEqual([])
  })

  it('never loses a wake-up: consumers that look, then wait, take everything a producer puts', async () => {
    const random = randomOf(seed)
    const clock = new ManualClock()
    const bell = new Doorbell(clock)
    const shelf: number[] = []
    const taken: number[] = []
    const pause = async (): Promise<void> => {
      for (let i = random.below(3); i > 0; i--) await Promise.resolve()
    }
    const consumer = async (): Promise<void> => {
      while (taken.length < 2_000) {
        const seen = bell.armed()
        await pause()
        const item = shelf.shift()
        if (item !== undefined) taken.push(item)
        else await bell.wait(Number.POSITIVE_INFINITY, seen)
      }
      bell.ring()
    }
    const producer = async (): Promise<void> => {
      for (let i = 0; i < 2_000; i++) {
        await pause()
        shelf.push(i)
        bell.ring()
      }
    }
    await Promise.all([consumer(), consumer(), consumer(), producer()])
    expect(taken.toSorted((a, b) => a - b)).toEqual(Array.from({ length: 2_000 }, (_, i) => i))
  })
})
