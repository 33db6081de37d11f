import { mkdirSync, mkdtempSync, rmSync, statfsSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { root } from '../../workspace.ts'

/** File systems without a disk, by their magic numbers in Linux's statfs(2): tmpfs and ramfs. */
const inMemory = new Set([0x01021994, 0x858458f6])

/** Runs `use` with a new directory on a real disk, where making something durable costs what it costs; removes it. */
export async function inTemporaryDirectory<T>(use: (directory: string) => Promise<T>): Promise<T> {
  let parent = tmpdir()
  if (inMemory.has(statfsSync(parent).type)) {
    parent = join(root, '.data')
    mkdirSync(parent, { recursive: true })
  }
  const directory = mkdtempSync(join(parent, 'idemq-bench-'))
  try {
    return await use(directory)
  } finally {
    rmSync(directory, { recursive: true, force: true })
  }
}
