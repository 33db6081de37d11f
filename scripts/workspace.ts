/** What the scripts know of the workspace: its packages, found by looking, never listed twice. */
import { spawn } from 'node:child_process'
import { once } from 'node:events'
import { existsSync, readdirSync, readFileSync } from 'node:fs'
import { join } from 'node:path'
import type { ServerName } from '../conformance/src/bed/index.ts'

export const root: string = join(import.meta.dirname, '..')

export interface WorkspacePackage {
  /** Short name: the folder's. */
  readonly name: string
  readonly directory: string
  readonly manifest: {
    readonly name: string
    readonly private?: boolean
    /** `example`: a URL that opens without reaching any server. */
    readonly idemq?: { readonly schemes: readonly string[]; readonly example: string }
    /** The real servers that its tests start. */
    readonly bed?: readonly ServerName[] | 'all'
    readonly exports?: Record<string, Record<string, string>>
  }
}

export const packages: readonly WorkspacePackage[] = [
  ...readdirSync(join(root, 'packages')).map((name) => ({ name, directory: join('packages', name) })),
  { name: 'conformance', directory: 'conformance' },
  { name: 'examples', directory: 'examples' },
]
  .filter(({ directory }) => existsSync(join(root, directory, 'package.json')))
  .map((p) => ({ ...p, manifest: JSON.parse(readFileSync(join(root, p.directory, 'package.json'), 'utf8')) }))

/** Runs a tool of node_modules/.bin in a directory of the workspace, its output shown. Resolves to whether it succeeded. */
export async function run(tool: string, args: readonly string[], directory = '.'): Promise<boolean> {
  const cwd = join(root, directory)
  const child = spawn(join(root, 'node_modules/.bin', tool), args, { cwd, stdio: 'inherit' })
  const [code] = await once(child, 'exit')
  return code === 0
}

/** The packages of these short names, or all. Ends the process with a message on an unknown one. */
export function selectPackages(names: readonly string[]): readonly WorkspacePackage[] {
  const unknown = names.filter((name) => !packages.some((p) => p.name === name))
  if (unknown.length > 0) {
    console.error(`unknown: ${unknown.join(', ')}; known: ${packages.map((p) => p.name).join(' ')}`)
    process.exit(2)
  }
  return names.length === 0 ? packages : packages.filter((p) => names.includes(p.name))
}
