/** Looking at dead letters, and sending them back. */
import { describe, expect, it } from 'vitest'
import { type DeadLetter, type DeadLetterFilter, PermanentError } from '../src/index.ts'
import { altered, during, type Numbered, numberedJob, openScene, type Scene, type SceneOptions } from './scene.ts'

class CardDeclined extends PermanentError {
  override readonly name = 'CardDeclined'
}

interface Buried {
  readonly scene: Scene
  readonly job: ReturnType<typeof numberedJob>
  /** Whether the handler fails, as it did for all that were buried. */
  sick: boolean
}

/** A queue where jobs 0…(count - 1) died a second apart: even ones as CardDeclined, odd ones exhausted as TypeError. */
async function buried(count: number, options?: SceneOptions): Promise<Buried> {
  const scene = await openScene(options)
  const job = numberedJob({ retry: { maxAttempts: 1 }, idempotencyKey: ({ n }) => `key ${n}` })
  const state: Buried = { scene, job, sick: true }
  const worker = scene.worker({ concurrency: 50 }).handle(job, ({ n }) => {
    if (!state.sick) return
    if (n % 2 === 0) throw new CardDeclined(`card of ${n} declined`)
    throw new TypeError('fetch failed')
  })
  await worker.start()
  for (let n = 0; n < count; n++) {
    await scene.mq.enqueue(job, { n })
    await scene.clock.advance(1_000)
  }
  return state
}

async function numbers(scene: Scene, filter?: DeadLetterFilter): Promise<number[]> {
  const found: number[] = []
  for await (const letter of scene.mq.deadLetters('work').scan(filter)) found.push(numberOf(letter))
  return found
}
const numberOf = (letter: DeadLetter): number => (letter.envelope!.payload as Numbered).n

describe('scan', () => {
  it('shows each letter once, oldest first, and changes nothing however often it looks', async () => {
    const { scene } = await buried(6)
    for (let look = 0; look < 3; look++) expect(await numbers(scene)).toEqual([0, 1, 2, 3, 4, 5])
    for await (const letter of scene.mq.deadLetters('work').scan()) {
      expect(letter.body).toBeInstanceOf(Uint8Array)
      break
    }
    expect(await numbers(scene)).toHaveLength(6)
  })

  it('selects by reason, error, job, ids, key, time and anything else, all of them together', async () => {
    const { scene } = await buried(6)
    const all = await scene.dead('work')
    const at = (n: number): number => all[n]!.deadAtMs!
    expect(await numbers(scene, { reason: 'permanent' })).toEqual([0, 2, 4])
    expect(await numbers(scene, { error: 'TypeError' })).toEqual([1, 3, 5])
    expect(await numbers(scene, { job: 'numbered' })).toHaveLength(6)
    expect(await numbers(scene, { job: 'another' })).toEqual([])
    expect(await numbers(scene, { jobIds: [all[1]!.envelope!.job_id, all[4]!.envelope!.job_id, 'x'] })).toEqual([1, 4])
    expect(await numbers(scene, { idempotencyKey: 'key 3' })).toEqual([3])
    expect(await numbers(scene, { sinceMs: at(2), untilMs: at(4) })).toEqual([2, 3])
    expect(await numbers(scene, { where: (letter) => letter.message.includes('of 4') })).toEqual([4])
    expect(await numbers(scene, { error: 'CardDeclined', sinceMs: at(1), where: (l) => numberOf(l) < 4 })).toEqual([2])
  })

  it('passes on what the broker says, and what the loop throws; nothing stays held', async () => {
    const { scene } = await buried(3)
    const boom = async (): Promise<void> => {
      for await (const letter of scene.mq.deadLetters('work').scan()) throw new Error(`at ${numberOf(letter)}`)
    }
    await expect(boom()).rejects.toThrow('at 0')
    expect(await numbers(scene)).toEqual([0, 1, 2])
    const down = await openScene({
      driver: (driver) => altered(driver, { scanDead: () => Promise.reject(new Error('connection reset')) }),
    })
    await expect(down.dead('work')).rejects.toThrow('connection reset')
    expect(() => scene.mq.deadLetters('no such name!')).toThrow(expect.objectContaining({ code: 'INVALID_OPTION' }))
  })

  it('ends when its signal aborts', async () => {
    const { scene } = await buried(4)
    const abort = new AbortController()
    const found: number[] = []
    for await (const letter of scene.mq.deadLetters('work').scan({}, abort.signal)) {
      found.push(numberOf(letter))
      if (found.length === 2) abort.abort()
    }
    expect(found).toEqual([0, 1])
  })

  it('lets two scans at once see all of it', async () => {
    const { scene } = await buried(5)
    expect(await Promise.all([numbers(scene), numbers(scene)])).toEqual([
      [0, 1, 2, 3, 4],
      [0, 1, 2, 3, 4],
    ])
  })
})

describe('groups', () => {
  it('counts by error, largest first, with the latest message', async () => {
    const { scene } = await buried(7)
    const groups = await scene.mq.deadLetters('work').groups()
    expect(groups).toEqual([
      {
        error: 'CardDeclined',
        reason: 'permanent',
        job: 'numbered',
        count: 4,
        latestAtMs: expect.any(Number),
        message: 'card of 6 declined',
      },
      {
        error: 'TypeError',
        reason: 'exhausted',
        job: 'numbered',
        count: 3,
        latestAtMs: expect.any(Number),
        message: 'fetch failed',
      },
    ])
    expect(await scene.mq.deadLetters('work').groups({ error: 'TypeError' })).toHaveLength(1)
  })
})

describe('replay', () => {
  it('only counts in a dry run', async () => {
    const { scene } = await buried(4)
    const result = await scene.mq.deadLetters('work').replay({ filter: { error: 'TypeError' }, dryRun: true })
    expect(result).toEqual({ matched: 2, replayed: 0, unreadable: 0, complete: true })
    expect(await numbers(scene)).toHaveLength(4)
    expect(scene.of('replayed')).toEqual([])
  })

  it('sends back what the filter selects: same identity, replay + 1, attempts from 1', async () => {
    const state = await buried(4)
    const { scene } = state
    const before = await scene.dead('work')
    state.sick = false
    const result = await scene.mq.deadLetters('work').replay({ filter: { error: 'CardDeclined' } })
    expect(result).toEqual({ matched: 2, replayed: 2, unreadable: 0, complete: true })
    await scene.clock.advance(10)
    expect(await numbers(scene)).toEqual([1, 3])
    const replayed = [before[0]!, before[2]!].map((letter) => letter.envelope!.job_id)
    expect(scene.of('replayed').map(({ jobId }) => jobId)).toEqual(replayed)
    expect(scene.of('succeeded').map(({ jobId, attempt, replay }) => [jobId, attempt, replay])).toEqual(
      replayed.map((jobId) => [jobId, 1, 1]),
    )
  })

  it('of a replay: a second failure dead-letters again with its replay counted and all its failures', async () => {
    const { scene } = await buried(1)
    const first = (await scene.dead('work'))[0]!.envelope!
    for (let round = 1; round <= 3; round++) {
      expect(await scene.mq.deadLetters('work').replay()).toMatchObject({ replayed: 1, complete: true })
      await scene.clock.advance(1_000)
      const [letter, ...others] = await scene.dead('work')
      expect(others).toEqual([])
      expect(letter!.envelope).toMatchObject({ job_id: first.job_id, replay: round, attempt: 1 })
      expect(letter!.envelope!.first_enqueued_at).toBe(first.first_enqueued_at)
      expect(letter!.envelope!.created_at > first.created_at).toBe(true)
      expect(letter!.envelope!.failures).toHaveLength(Math.min(5, 1 + round))
    }
  })

  it('of one letter in a scan removes that one; a letter can be removed for good, too', async () => {
    const state = await buried(4)
    state.sick = false
    for await (const letter of state.scene.mq.deadLetters('work').scan()) {
      if (numberOf(letter) === 1) await letter.replay()
      if (numberOf(letter) === 2) letter.remove()
    }
    await state.scene.clock.advance(10)
    expect(await numbers(state.scene)).toEqual([0, 3])
    expect(state.scene.of('succeeded')).toHaveLength(1)
    const letters = state.scene.mq.deadLetters('work')
    expect(await letters.remove({ idempotencyKey: 'key 3' })).toBe(1)
    await expect(letters.remove({})).rejects.toMatchObject({ code: 'INVALID_OPTION' })
    await expect(letters.remove({ job: undefined } as never)).rejects.toMatchObject({ code: 'INVALID_OPTION' })
    expect(await numbers(state.scene)).toEqual([0])
  })

  it('takes a removal or a replay into account where the loop ends with it', async () => {
    const state = await buried(4)
    state.sick = false
    const letters = state.scene.mq.deadLetters('work')
    for await (const letter of letters.scan()) {
      letter.remove()
      break
    }
    for await (const letter of letters.scan()) {
      await letter.replay()
      break
    }
    expect(await numbers(state.scene)).toEqual([2, 3])
    await state.scene.clock.advance(10)
    expect(state.scene.of('succeeded')).toHaveLength(1)
  })

  it('stops at its limit', async () => {
    const state = await buried(5)
    state.sick = false
    const letters = state.scene.mq.deadLetters('work')
    expect(await letters.replay({ limit: 2 })).toEqual({ matched: 2, replayed: 2, unreadable: 0, complete: false })
    expect(await letters.replay({ limit: 2, dryRun: true })).toMatchObject({ matched: 2, replayed: 0, complete: false })
    expect(await letters.replay({ limit: 0 })).toMatchObject({ matched: 0, replayed: 0 })
    expect(await numbers(state.scene)).toEqual([2, 3, 4])
    expect(await letters.replay({ limit: 3 })).toMatchObject({ replayed: 3, complete: true })
  })

  it('goes at the rate that was asked for', async () => {
    const state = await buried(6)
    state.sick = false
    const { scene } = state
    const startedAtMs = scene.clock.monotonicMs()
    await during(scene.clock, scene.mq.deadLetters('work').replay({ perSecond: 2 }))
    const at = scene.of('replayed').map(({ atMs }) => atMs - scene.of('replayed')[0]!.atMs)
    expect(at).toEqual([0, 500, 1_000, 1_500, 2_000, 2_500])
    expect(scene.clock.monotonicMs() - startedAtMs).toBeLessThan(4_000)
    for (const perSecond of [0, -1, Number.NaN]) {
      await expect(scene.mq.deadLetters('work').replay({ perSecond })).rejects.toMatchObject({ code: 'INVALID_OPTION' })
    }
  })

  it('stops between letters when its signal aborts, and says that it is not complete', async () => {
    const state = await buried(6)
    state.sick = false
    const { scene } = state
    const abort = new AbortController()
    let replayed = 0
    scene.mq.on('replayed', () => {
      if (++replayed === 2) abort.abort()
    })
    const replaying = scene.mq.deadLetters('work').replay({ perSecond: 1, signal: abort.signal })
    expect(await during(scene.clock, replaying)).toEqual({ matched: 2, replayed: 2, unreadable: 0, complete: false })
    expect(await numbers(scene)).toEqual([2, 3, 4, 5])
  })

  it('is not complete where the broker could not show everything', async () => {
    const { scene } = await buried(2, {
      driver: (driver) =>
        altered(driver, {
          scanDead: async (queue, visit, signal) => {
            await driver.scanDead(queue, visit, signal)
            return { complete: false }
          },
        }),
    })
    expect(await scene.mq.deadLetters('work').replay({ dryRun: true })).toMatchObject({ matched: 2, complete: false })
  })

  it('keeps the letter where its copy could not be stored', async () => {
    let full = false
    const { scene } = await buried(3, {
      driver: (driver) =>
        altered(driver, {
          send: (target, batch, signal) =>
            full ? Promise.reject(new Error('full')) : driver.send(target, batch, signal),
        }),
    })
    full = true
    await expect(during(scene.clock, scene.mq.deadLetters('work').replay())).rejects.toThrow('full')
    full = false
    expect(await numbers(scene)).toEqual([0, 1, 2])
  })

  it('that is repeated after a crash between copy and removal runs the job once', async () => {
    const state = await buried(1)
    const { scene } = state
    state.sick = false
    // The crash: the copy is stored, the letter stays.
    for await (const letter of scene.mq.deadLetters('work').scan()) {
      const { dead: _, ...kept } = letter.envelope!
      const body = Buffer.from(JSON.stringify({ ...kept, replay: 1 }))
      const { job_id: jobId } = kept
      const copy = { copyId: `${jobId}.1.1.0`, jobId, body, partitionKey: 'p', ordered: false, delayMs: 0 }
      await scene.mq.driver.send({ name: 'work' }, [copy], AbortSignal.timeout(1_000))
    }
    await scene.mq.deadLetters('work').replay()
    await scene.drain('work')
    expect(scene.of('succeeded')).toHaveLength(1)
    expect(await numbers(scene)).toEqual([])
  })
})
