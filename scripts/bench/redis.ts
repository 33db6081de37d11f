/** What Redis Streams do, beside `ioredis` by hand and BullMQ on the same server. */
import { Redis } from 'ioredis'
import { bed } from '../../conformance/src/bed/index.ts'
import { benchBroker, peerRun, versioned } from './harness/broker-bench.ts'
import { inFreshProcess } from './harness/fresh-process.ts'
import { workedByBullMq } from './redis/bullmq.ts'
import { publishByHand, waiting, workByHand } from './redis/by-hand.ts'

const bullmq = import.meta.resolve('./redis/bullmq.ts')

export async function bench(): Promise<void> {
  const server = await bed('redis', { args: ['--appendonly', 'yes', '--appendfsync', 'everysec'] })
  const admin = new Redis(server.url)
  try {
    const [, version] = (await admin.info('server')).match(/redis_version:(\S+)/)!
    await benchBroker({
      title: `redis ${version} · appendonly yes, appendfsync everysec`,
      async fresh() {
        await admin.flushall()
        return { url: server.url, otherUrl: `${server.url}?prefix=other` }
      },
      byHand: {
        file: import.meta.resolve('./redis/by-hand.ts'),
        publish: publishByHand,
        publishes: 'XADD, a pipeline of 1,000',
        work: workByHand,
        works: 'XREADGROUP, XACK and XDEL of 1,000, two consumers',
        waiting,
        waits: 'XADD, and blocked in XREADGROUP',
      },
      peers: [
        {
          name: versioned('bullmq'),
          target: 1.5,
          contenders: [50, 200].map((concurrency) => ({
            setting: `concurrency ${concurrency}`,
            run: (place) => inFreshProcess(bullmq, workedByBullMq, { ...peerRun(place), concurrency }),
          })),
        },
      ],
    })
  } finally {
    admin.disconnect()
    await server.stop()
  }
}
