/** What Postgres does, beside `pg` by hand, graphile-worker and pg-boss on the same server. */
import pg from 'pg'
import { bed } from '../../conformance/src/bed/index.ts'
import { benchBroker, peerRun, versioned } from './harness/broker-bench.ts'
import { inFreshProcess } from './harness/fresh-process.ts'
import { count } from './harness/report.ts'
import { publishByHand, waiting, workByHand } from './postgres/by-hand.ts'
import { workedByGraphileWorker } from './postgres/graphile-worker.ts'
import { workedByPgBoss } from './postgres/pg-boss.ts'

const graphileWorker = import.meta.resolve('./postgres/graphile-worker.ts')
const pgBoss = import.meta.resolve('./postgres/pg-boss.ts')

export async function bench(): Promise<void> {
  const server = await bed('postgres')
  const admin = new pg.Client({ connectionString: server.url })
  await admin.connect()
  try {
    const { rows } = await admin.query<{ server_version: string }>('SHOW server_version')
    await benchBroker({
      title: `postgres ${rows[0]!.server_version} · as installed: fsync on, synchronous_commit on`,
      async fresh() {
        await admin.query('DROP DATABASE IF EXISTS bench WITH (FORCE)')
        await admin.query('CREATE DATABASE bench')
        const url = new URL(server.url)
        url.pathname = '/bench'
        return { url: url.href, otherUrl: `${url.href}?schema=other` }
      },
      byHand: {
        file: import.meta.resolve('./postgres/by-hand.ts'),
        publish: publishByHand,
        publishes: 'INSERT of 1,000 into a plain table',
        work: workByHand,
        works: 'SKIP LOCKED and DELETE of 1,000, two consumers',
        waiting,
        waits: 'INSERT with NOTIFY, and LISTEN, then SKIP LOCKED',
      },
      peers: [
        {
          name: versioned('graphile-worker'),
          target: 5,
          contenders: [
            // As its own documentation measures it.
            { concurrentJobs: 24, localQueueSize: 500 },
            { concurrentJobs: 100, localQueueSize: 1_000 },
          ].map((setting) => ({
            setting: `concurrentJobs ${setting.concurrentJobs}, localQueue ${count(setting.localQueueSize)}`,
            run: (place) => inFreshProcess(graphileWorker, workedByGraphileWorker, { ...peerRun(place), ...setting }),
          })),
        },
        {
          name: `${versioned('graphile-worker')} as by default, job by job`,
          contenders: [
            {
              setting: 'concurrentJobs 24',
              run(place) {
                const run = { ...peerRun(place), jobs: 5_000, concurrentJobs: 24 }
                return inFreshProcess(graphileWorker, workedByGraphileWorker, run)
              },
            },
          ],
        },
        {
          name: versioned('pg-boss'),
          target: 5,
          contenders: [
            { batchSize: 500, localConcurrency: 4, perJobResults: false },
            { batchSize: 2_000, localConcurrency: 2, perJobResults: false },
            { batchSize: 500, localConcurrency: 4, perJobResults: true },
          ].map((setting) => {
            const { batchSize, localConcurrency, perJobResults } = setting
            return {
              setting: `batchSize ${count(batchSize)}, localConcurrency ${localConcurrency}${perJobResults ? ', perJobResults' : ''}`,
              run: (place) => inFreshProcess(pgBoss, workedByPgBoss, { ...peerRun(place), ...setting }),
            }
          }),
        },
      ],
    })
  } finally {
    await admin.end()
    await server.stop()
  }
}
