import { mkdirSync } from 'node:fs'
import { tmpdir, userInfo } from 'node:os'
import { join } from 'node:path'
import { performance } from 'node:perf_hooks'
import { DatabaseSync } from 'node:sqlite'
import { setTimeout as delay } from 'node:timers/promises'
import { report } from './report.ts'

/** Where the processes of one user on this machine meet: locks, and what is remembered of the engine. */
export function stateDirectory(): string {
  const directory = join(tmpdir(), `idemq-bed-${userInfo().uid}`)
  mkdirSync(directory, { recursive: true, mode: 0o700 })
  return directory
}

/** A collected connection would let go of its lock: what is held stays reachable, whatever becomes of the work. */
const held = new Set<DatabaseSync>()

/**
 * At most one process of this machine at a time runs `work` under one name. The lock is SQLite's on a file, held by
 * the operating system: it ends with its process, however that ends, and no stale lock is ever to be judged.
 */
export async function withLock<T>(name: string, work: () => Promise<T>): Promise<T> {
  const database = new DatabaseSync(join(stateDirectory(), `${name}.lock`))
  try {
    const startedAt = performance.now()
    let told = false
    while (!acquired(database)) {
      if (!told && performance.now() - startedAt > 1_000) {
        report(`waiting for another process that prepares '${name}'`)
        told = true
      }
      await delay(50)
    }
    held.add(database)
    return await work()
  } finally {
    held.delete(database)
    database.close()
  }
}

function acquired(database: DatabaseSync): boolean {
  try {
    database.exec('BEGIN EXCLUSIVE')
    return true
  } catch (error) {
    if ((error as { errcode?: number }).errcode === 5) return false
    throw error
  }
}
