/** One child of a run, as its parent sees it. */
import { spawn } from 'node:child_process'
import { createRequire } from 'node:module'
import { fileURLToPath } from 'node:url'
import { type ChildConfig, unavailableExitCode } from './child-config.ts'

export interface ChildExit {
  /** True if SIGKILL ended it, by its own hand or its parent's. */
  readonly killed: boolean
  /** True if it ended as it was told to, or to be started again, with nothing to complain about. */
  readonly clean: boolean
  readonly code: number | null
  /** The end of what it wrote to stderr. */
  readonly stderr: string
}

export interface Child {
  readonly config: ChildConfig
  readonly exited: Promise<ChildExit>
  /** SIGKILL. */
  kill(): void
  /** SIGCONT. */
  resume(): void
  /** Asks it to end by itself; kills it if it has not after `patienceMs`, which counts as neither clean nor killed. */
  stop(patienceMs?: number): Promise<ChildExit>
}

const ownUrl = import.meta.url
/** Sources run sources. A build may have put this module anywhere: there the package's own exports tell. */
const entry = ownUrl.endsWith('.ts')
  ? fileURLToPath(new URL('./child.ts', ownUrl))
  : createRequire(ownUrl).resolve('@idemq/conformance/crash/child')
const conditions = entry.endsWith('.ts') ? ['--conditions=idemq-source'] : []
const nodeOptions = ['--disable-warning=ExperimentalWarning', ...conditions]
const keptStderr = 4_000
const defaultPatienceMs = 20_000

/** `cacheDirectory` keeps compiled code: a child that finds it starts in a third of the time. */
export function startChild(config: ChildConfig, cacheDirectory: string): Child {
  const child = spawn(process.execPath, [...nodeOptions, entry, JSON.stringify(config)], {
    stdio: ['ignore', 'inherit', 'pipe'],
    env: { ...process.env, NODE_COMPILE_CACHE: cacheDirectory },
  })
  let stderr = ''
  let overdue = false
  let stopping = false
  child.stderr.setEncoding('utf8').on('data', (text: string) => {
    stderr = (stderr + text).slice(-keptStderr)
  })
  const exited = new Promise<ChildExit>((resolve, reject) => {
    child.once('error', reject)
    child.once('close', (code, signal) => {
      // Told to stop before it could listen, it dies of SIGTERM: it had not begun anything.
      const clean = code === 0 || code === unavailableExitCode || (stopping && signal === 'SIGTERM')
      resolve({ killed: signal === 'SIGKILL' && !overdue, clean, code, stderr })
    })
  })
  return {
    config,
    exited,
    kill: () => void child.kill('SIGKILL'),
    resume: () => void child.kill('SIGCONT'),
    async stop(patienceMs = defaultPatienceMs) {
      stopping = true
      child.kill('SIGTERM')
      const timer = setTimeout(() => {
        overdue = true
        stderr += `\n${config.name} did not stop within ${patienceMs} ms`
        child.kill('SIGKILL')
      }, patienceMs)
      const exit = await exited
      clearTimeout(timer)
      return exit
    },
  }
}
