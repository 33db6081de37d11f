/** Who lost a claim writes nothing any more; copies that have a successor are dropped. The order law, seen from outside. */
import { describe, expect, it } from 'vitest'
import { fixed, type InboxStore, PermanentError, sleep } from '../src/index.ts'
import { altered, numberedJob, openScene, type Scene } from './scene.ts'

/** A scene that writes down every write, and where from some moment on every claim of ours belongs to somebody else. */
async function watched(): Promise<{ scene: Scene; log: string[]; steal: () => void; give: () => void }> {
  const log: string[] = []
  let stolen = false
  const fence = <T, R>(batch: readonly T[], call: () => Promise<R[]>): Promise<(R | 'lost')[]> =>
    stolen ? Promise.resolve(batch.map(() => 'lost')) : call()
  const scene = await openScene({
    driver: (driver) =>
      altered(driver, {
        send: async (target, batch, signal) => {
          log.push(...batch.map(({ copyId }) => `copy ${copyId.split('.').slice(1).join('.')}`))
          return driver.send(target, batch, signal)
        },
        sendDead: async (queue, batch, signal) => {
          log.push(...batch.map(() => 'dead copy'))
          return driver.sendDead(queue, batch, signal)
        },
        open: async (queue, options, signal) => {
          const receiver = await driver.open(queue, options, signal)
          return altered(receiver, {
            settle: async (batch, s) => {
              log.push(...batch.map(({ outcome }) => outcome))
              return receiver.settle(batch, s)
            },
          })
        },
      }),
    inbox: (inbox) =>
      altered<InboxStore>(inbox, {
        renew: (batch, leaseMs, signal) => fence(batch, () => inbox.renew(batch, leaseMs, signal)),
        end: async (batch, retentionMs, signal) => {
          const held = await fence(batch, () => inbox.end(batch, retentionMs, signal))
          log.push(...batch.map(({ state, free }, i) => `${state}${free ? ' free' : ''} ${held[i]}`))
          return held
        },
      }),
  })
  return {
    scene,
    log,
    steal: () => {
      stolen = true
    },
    give: () => {
      stolen = false
    },
  }
}

describe('the order of writes', () => {
  it('of a success: inbox, then the original', async () => {
    const { scene, log } = await watched()
    const job = numberedJob()
    const worker = scene.worker().handle(job, () => {})
    await worker.start()
    await scene.mq.enqueue(job, { n: 1 })
    await scene.drain('work')
    expect(log).toEqual(['copy 0.1.0', 'completed held', 'ack'])
  })

  it('of a retry and a dead letter: copy, then inbox, then the original', async () => {
    const { scene, log } = await watched()
    const job = numberedJob({ retry: { maxAttempts: 2, backoff: fixed(10) } })
    const worker = scene.worker().handle(job, () => {
      throw new Error('no')
    })
    await worker.start()
    await scene.mq.enqueue(job, { n: 1 })
    await scene.drain('work')
    expect(log.slice(1)).toEqual(['copy 0.2.0', 'released held', 'ack', 'dead copy', 'failed held', 'ack'])
  })

  it('of a snooze and of a deferral: the same', async () => {
    const { scene, log } = await watched()
    const job = numberedJob()
    const worker = scene.worker().handle(job, (_, run) => {
      if (scene.of('started').length === 1) run.snooze(100)
    })
    await worker.start()
    await scene.mq.enqueue(job, { n: 1 })
    await scene.mq.enqueue(numberedJob({ name: 'unknown' }), { n: 1 })
    await scene.clock.advance(500)
    expect(log.toSorted()).toEqual(
      [
        'copy 0.1.0',
        'copy 0.1.0',
        'copy 0.1.1',
        'released free held',
        'ack',
        'copy 0.1.1',
        'ack',
        'completed held',
        'ack',
      ].toSorted(),
    )
    expect(log.indexOf('released free held')).toBeGreaterThan(log.indexOf('copy 0.1.1'))
  })
})

describe('who lost the claim', () => {
  it.each<[string, number, () => unknown]>([
    ['fails', 2, () => Promise.reject(new Error('late'))],
    ['fails for the last time', 1, () => Promise.reject(new Error('late'))],
    ['fails for good', 2, () => Promise.reject(new PermanentError('late'))],
    ['succeeds', 2, () => 'late'],
  ])(
    'and %s, writes no copy, no dead letter and no completion; the delivery goes back',
    async (_, maxAttempts, outcome) => {
      const { scene, log, steal, give } = await watched()
      const job = numberedJob({ retry: { maxAttempts } })
      const worker = scene.worker().handle(job, () => {
        if (scene.of('started').length > 1) return undefined
        steal()
        return outcome()
      })
      await worker.start()
      await scene.mq.enqueue(job, { n: 1 })
      await scene.clock.advance(50)
      expect(log.filter((line) => /^(copy 0\.2|dead copy|.* held)/.test(line))).toEqual([])
      // It comes back to be deduplicated or, while another has the key, to wait.
      expect(log.filter((line) => !line.endsWith('lost')).slice(0, 2)).toEqual(['copy 0.1.0', 'release'])
      expect(scene.of('claim_lost')).toHaveLength(1)
      give()
      await scene.clock.advance(1_000)
      expect(scene.of('started').length).toBeGreaterThanOrEqual(1)
    },
  )

  it('and snoozes, hands the delivery back instead', async () => {
    const { scene, log, steal } = await watched()
    const job = numberedJob()
    const worker = scene.worker().handle(job, (_, run) => {
      steal()
      run.snooze(10)
    })
    await worker.start()
    await scene.mq.enqueue(job, { n: 1 })
    await scene.clock.advance(5)
    expect(log.slice(0, 2)).toEqual(['copy 0.1.0', 'release'])
    expect(log.filter((line) => line.endsWith('held'))).toEqual([])
  })
})

describe('a copy that has a successor', () => {
  it('is dropped when it comes back, so that duplicates never multiply', async () => {
    let deaf = true
    const scene = await openScene({
      driver: (driver) =>
        altered(driver, {
          open: async (queue, options, signal) => {
            const receiver = await driver.open(queue, options, signal)
            return altered(receiver, {
              // The first acks never reach the broker: the original comes back when its lease is over.
              settle: (batch, s) =>
                deaf ? Promise.resolve(batch.map(() => ({ status: 'unknown' as const }))) : receiver.settle(batch, s),
            })
          },
        }),
    })
    const job = numberedJob({ retry: { maxAttempts: 3, backoff: fixed(60_000) } })
    const startsMs: number[] = []
    const worker = scene.worker({ leaseMs: 10_000, claimLeaseMs: 5_000 }).handle(job, (_, { attempt }) => {
      startsMs.push(scene.clock.monotonicMs())
      if (attempt < 3) throw new Error('later')
    })
    await worker.start()
    await scene.mq.enqueue(job, { n: 1 })
    await scene.clock.advance(1_000)
    deaf = false
    await scene.drain('work')
    expect(startsMs).toEqual([0, 60_000, 120_000])
    expect(scene.of('deduplicated').map(({ reason }) => reason)).toEqual(['stale'])
    expect(scene.of('succeeded')).toHaveLength(1)
  })

  it('after a dead letter is dropped, too', async () => {
    let deaf = true
    const scene = await openScene({
      driver: (driver) =>
        altered(driver, {
          open: async (queue, options, signal) => {
            const receiver = await driver.open(queue, options, signal)
            return altered(receiver, {
              settle: (batch, s) =>
                deaf ? Promise.resolve(batch.map(() => ({ status: 'unknown' as const }))) : receiver.settle(batch, s),
            })
          },
        }),
    })
    const job = numberedJob()
    const worker = scene.worker({ leaseMs: 10_000 }).handle(job, async () => {
      await sleep(scene.clock, 10)
      throw new PermanentError('declined')
    })
    await worker.start()
    await scene.mq.enqueue(job, { n: 1 })
    await scene.clock.advance(1_000)
    deaf = false
    await scene.drain('work')
    expect(scene.of('started')).toHaveLength(1)
    expect(await scene.dead('work')).toHaveLength(1)
  })
})
