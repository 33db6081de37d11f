import { readFileSync } from 'node:fs'
import { crashPoints } from '@idemq/core'
import { expect, it } from 'vitest'
import { expectations } from './expectations.ts'

it('says for every crash point what must follow, and the README says the same', () => {
  expect(Object.keys(expectations)).toEqual(Object.keys(crashPoints))
  const rows = Object.entries(expectations).map(
    ([point, { leaves, follows }]) => `| \`${point}\` | ${leaves} | ${follows} |`,
  )
  const readme = readFileSync(new URL('./README.md', import.meta.url), 'utf8')
  const [, table] = readme.split('|---|---|---|\n')
  expect(table?.trimEnd().split('\n')).toEqual(rows)
})
