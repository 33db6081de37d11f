/**
 * Type-checks the TypeScript of every README. A block stands alone, after what the comment right before it declares:
 * `<!-- given: import … -->`.
 */
import { existsSync, mkdirSync, readFileSync, rmSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { packages, root, run } from './workspace.ts'

const readmes = ['README.md', ...packages.map((p) => join(p.directory, 'README.md'))].filter((path) =>
  existsSync(join(root, path)),
)
const block = /(?:<!-- given:\n?([\s\S]*?)-->\n+)?```ts\n([\s\S]*?)```/g

// In examples, because that package sees every published one.
const folder = join(root, 'examples/.readme')
rmSync(folder, { recursive: true, force: true })
mkdirSync(folder)
let count = 0
for (const path of readmes) {
  const text = readFileSync(join(root, path), 'utf8')
  for (const [, given = '', code = ''] of text.matchAll(block)) {
    const file = `${path.replaceAll(/[/.]/g, '-')}-${++count}.ts`
    writeFileSync(join(folder, file), `${given}\n${code}\nexport {}\n`)
  }
}
const config = {
  extends: '../../tsconfig.base.json',
  compilerOptions: { isolatedDeclarations: false, declaration: false },
  include: ['*.ts'],
}
writeFileSync(join(folder, 'tsconfig.json'), JSON.stringify(config))
const ok = await run('tsc', ['-p', 'examples/.readme'])
if (ok) rmSync(folder, { recursive: true })
console.log(ok ? `${count} README blocks compile` : `README blocks do not compile: see ${folder}`)
process.exit(ok ? 0 : 1)
