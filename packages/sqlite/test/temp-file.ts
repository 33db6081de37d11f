import { mkdtempSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { onTestFinished } from 'vitest'

/** Path of a database that does not exist yet, in a directory removed when the test is finished. */
export function tempFile(): string {
  const directory = mkdtempSync(join(tmpdir(), 'idemq-sqlite-'))
  onTestFinished(() => rmSync(directory, { recursive: true, force: true }))
  return join(directory, 'jobs.db')
}
