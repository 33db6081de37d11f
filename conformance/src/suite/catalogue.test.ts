import assert from 'node:assert/strict'
import { readFileSync, writeFileSync } from 'node:fs'
import { describe, it } from 'vitest'
import { catalogue } from './catalogue.ts'
import { driverGroups } from './driver/index.ts'
import { storeGroups } from './inbox/index.ts'
import { outboxGroups } from './outbox/cases.ts'
import { workerGroups } from './worker/index.ts'

const readme = new URL('../../README.md', import.meta.url)
const [begin, end] = ['<!-- cases: generated, see below -->\n', '<!-- /cases -->']

describe('the list of cases', () => {
  it('is in the README as it is (IDEMQ_UPDATE_README=1 writes it there)', () => {
    const text = readFileSync(readme, 'utf8')
    const [before, rest = ''] = text.split(begin)
    const current = `${before}${begin}${catalogue()}${end}${rest.split(end)[1]}`
    if (process.env.IDEMQ_UPDATE_README) writeFileSync(readme, current)
    assert.equal(text === current || process.env.IDEMQ_UPDATE_README !== undefined, true, 'the README is out of date')
  })

  it('names each case once', () => {
    const suites: readonly (readonly { readonly cases: readonly { readonly name: string }[] }[])[] = [
      [...driverGroups, ...workerGroups],
      storeGroups,
      outboxGroups,
    ]
    for (const groups of suites) {
      const names = groups.flatMap(({ cases }) => cases.map(({ name }) => name))
      assert.deepEqual(names, [...new Set(names)])
    }
  })
})
