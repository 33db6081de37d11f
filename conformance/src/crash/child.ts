/** The one entry of every process of a crash run: `node child.ts '<ChildConfig as JSON>'`. Ends on SIGTERM. */
import { type Adapter, connect, IdemqError, type IdemqEvent, type Mq, sleep, systemClock } from '@idemq/core'
import { connectLedger } from '../oracle/ledger.ts'
import { openStatementLog, type StatementLog } from '../oracle/statements.ts'
import { openBroker } from './brokers.ts'
import { type ChildConfig, unavailableExitCode } from './child-config.ts'
import { controls } from './controls.ts'
import { createExecutioner } from './executioner.ts'
import { crashQueue, kinds } from './jobs.ts'
import { produce } from './producer.ts'
import { type Tap, tapAdapter } from './tap.ts'
import { addHandlers } from './work.ts'

const config = JSON.parse(process.argv[2]!) as ChildConfig
const log = openStatementLog(config.logPath, config.name)
const stopping = new AbortController()
process.on('SIGTERM', () => {
  log.write({ type: 'stopping' })
  stopping.abort()
})
// Without its parent a child has nobody to be judged by.
const ledger = await connectLedger(config.ledgerPort, () => process.exit(3))
const executioner = createExecutioner(config.plan, log)

try {
  const { name, role } = config
  const tap = tapAdapter({ adapter: await openAdapter(), log, name, onEdge: executioner.onEdge })
  const mq = await connect(tap.adapter)
  stateEvents(mq, log)
  log.write({ type: 'ready', role })
  await play(mq, tap)
  await mq.close()
} catch (error) {
  if (!(error instanceof IdemqError && error.retryable)) throw error
  // The broker or the way to it is away, or a frozen process keeps a lock. Whoever supervises starts again.
  log.write({ type: 'event', event: 'unavailable', detail: `${error.code} ${error.message}` })
  process.exit(unavailableExitCode)
}
ledger.close()
log.close()

async function play(mq: Mq, tap: Tap): Promise<void> {
  if (config.role === 'producer') {
    await produce({ mq, tap, log, ledger, config, signal: stopping.signal })
  } else if (config.role === 'worker') {
    const { leaseMs, claimLeaseMs, concurrency, prefetch, lethal } = config
    const worker = mq.worker({ leaseMs, claimLeaseMs, concurrency, prefetch, graceMs: 500 })
    addHandlers({ worker, mq, tap, log, ledger, name: config.name, ...(lethal && { die: executioner.die }) })
    await worker.start()
    await aborted(stopping.signal)
    await worker.stop({ drainMs: 5_000 })
  } else if (config.role === 'relay') {
    await mq.relay({ batch: 20, leaseMs: config.leaseMs, pollMs: 50 }).start()
    await aborted(stopping.signal)
  } else {
    await operate(mq)
  }
}

async function openAdapter(): Promise<Adapter> {
  const adapter = await openBroker(config)
  if (!config.control) return adapter
  const control = controls[config.control]
  if (!control) throw new Error(`no control '${config.control}'`)
  return control.wrap?.(adapter) ?? adapter
}

/** Replays what a replay can cure. What was replayed twice in vain stays dead. */
async function operate(mq: Mq): Promise<void> {
  const letters = mq.deadLetters(crashQueue)
  while (!stopping.signal.aborted) {
    await letters.replay({
      filter: { job: kinds.declined.job.name, where: ({ envelope }) => envelope !== undefined && envelope.replay < 2 },
    })
    if (config.once) return
    await sleep(systemClock, 50, stopping.signal)
  }
}

function stateEvents(of: Mq, to: StatementLog): void {
  const details: { readonly [T in IdemqEvent['type']]?: (event: Extract<IdemqEvent, { type: T }>) => string } = {
    claim_lost: () => '',
    deduplicated: ({ reason }) => reason,
    deferred: ({ reason }) => reason,
    dead_lettered: ({ reason }) => reason,
    warning: ({ message }) => message,
    trouble: ({ operation, error }) => `${operation}: ${error.code} ${error.message}`,
  }
  of.on('*', (event) => {
    const detail = details[event.type] as ((e: IdemqEvent) => string) | undefined
    if (!detail) return
    const jobId = 'jobId' in event ? event.jobId : event.type === 'dead_lettered' ? event.job?.jobId : undefined
    to.write({ type: 'event', event: event.type, detail: detail(event), ...(jobId !== undefined && { jobId }) })
  })
}

function aborted(signal: AbortSignal): Promise<void> {
  if (signal.aborted) return Promise.resolve()
  return new Promise((resolve) => signal.addEventListener('abort', () => resolve()))
}
