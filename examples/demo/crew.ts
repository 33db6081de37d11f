/** The worker processes: started, killed with SIGKILL, started again. */
import { type ChildProcess, fork } from 'node:child_process'
import { once } from 'node:events'
import { fileURLToPath } from 'node:url'
import type { FromWorker } from './report.ts'

export interface Member {
  /** Stays when the process is replaced: 1, 2, 3 … */
  readonly number: number
  readonly pid: number
  /** Handlers running, as the process last told. */
  readonly inHand: number
}

export interface CrewOptions {
  readonly size: number
  readonly env: NodeJS.ProcessEnv
  readonly onMessage: (member: Member, message: FromWorker) => void
  /** A worker ended that nobody killed. Always a fault, so it is not replaced. */
  readonly onUnexpectedExit: (member: Member, how: string) => void
}

export interface Crew {
  /** Starts everybody; resolves when all are ready to work. */
  start(signal: AbortSignal): Promise<void>
  /** Those who are ready. */
  ready(): Member[]
  /** SIGKILL: no handler runs, nothing is flushed. Resolves when the process is gone and its successor started. */
  kill(number: number): Promise<{ before: Member; successorPid: number }>
  /** Asks everybody to finish what is in hand; resolves when all processes have ended. */
  stop(signal: AbortSignal): Promise<void>
}

interface Place {
  readonly number: number
  child: ChildProcess
  ready: Promise<unknown>
  isReady: boolean
  inHand: number
  expectedToEnd: boolean
}

const workerFile = fileURLToPath(new URL('worker.ts', import.meta.url))

/** Every child of this process that still runs. */
const children = new Set<ChildProcess>()

/** Forks `file` as a child that {@link killChildren} knows of. */
export function forkChild(file: string, args: readonly string[], env: NodeJS.ProcessEnv): ChildProcess {
  const child = fork(file, args, { env, stdio: ['ignore', 'pipe', 'inherit', 'ipc'] })
  children.add(child)
  child.once('exit', () => children.delete(child))
  return child
}

/** Ends every child at once, by its pid. For the ways out that do not wait. */
export function killChildren(): void {
  for (const child of children) child.kill('SIGKILL')
}

export function createCrew(options: CrewOptions): Crew {
  const places: Place[] = []

  const memberAt = (place: Place): Member => ({
    number: place.number,
    pid: place.child.pid ?? 0,
    inHand: place.inHand,
  })
  const occupy = (place: Place): void => {
    const child = forkChild(workerFile, [String(place.number)], options.env)
    place.child = child
    place.isReady = false
    place.inHand = 0
    place.expectedToEnd = false
    place.ready = new Promise((resolve) => {
      child.on('message', (message: FromWorker) => {
        if (place.child !== child) return
        if (message.type === 'ready') {
          place.isReady = true
          resolve(undefined)
        }
        if (message.type === 'tally') place.inHand = message.inHand
        options.onMessage(memberAt(place), message)
      })
    })
    // What a worker prints belongs above the bar; it prints nothing unless something is wrong.
    child.stdout?.pipe(process.stderr)
    child.once('exit', (code, signal) => {
      if (place.child !== child || place.expectedToEnd) return
      place.isReady = false
      options.onUnexpectedExit(memberAt(place), signal ?? `exit code ${code}`)
    })
  }

  return {
    async start(signal) {
      for (let number = 1; number <= options.size; number++) {
        const place = { number } as Place
        occupy(place)
        places.push(place)
      }
      await Promise.race([Promise.all(places.map(({ ready }) => ready)), rejectOn(signal)])
    },
    ready: () => places.filter(({ isReady }) => isReady).map(memberAt),
    async kill(number) {
      const place = places[number - 1]!
      const before = memberAt(place)
      place.expectedToEnd = true
      place.isReady = false
      const gone = once(place.child, 'exit')
      place.child.kill('SIGKILL')
      await gone
      occupy(place)
      return { before, successorPid: place.child.pid ?? 0 }
    },
    async stop(signal) {
      const stopped = Promise.all(
        places.map(async (place) => {
          place.expectedToEnd = true
          if (place.child.exitCode !== null || place.child.signalCode !== null) return
          const gone = once(place.child, 'exit')
          place.child.send('stop')
          const [code, killedBy] = await gone
          if (code !== 0) options.onUnexpectedExit(memberAt(place), killedBy ?? `exit code ${code}`)
        }),
      )
      await Promise.race([stopped, rejectOn(signal)])
    },
  }
}

function rejectOn(signal: AbortSignal): Promise<never> {
  return new Promise((_, reject) => signal.addEventListener('abort', () => reject(signal.reason), { once: true }))
}
