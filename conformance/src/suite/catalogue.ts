/** The list of cases, for the README. */
import type { CaseGroup } from './case.ts'
import { driverGroups } from './driver/index.ts'
import { storeGroups } from './inbox/index.ts'
import { outboxGroups } from './outbox/cases.ts'
import { workerGroups } from './worker/index.ts'

/** Every case of every suite as Markdown tables, with what it needs of the manifest or the harness. */
export function catalogue(): string {
  return [
    ...tables('`driverSuite`: the driver by itself', driverGroups),
    ...tables('`driverSuite`: core on the driver', workerGroups),
    ...tables('`storeSuite`', storeGroups),
    ...tables('`outboxSuite`', outboxGroups),
  ].join('\n')
}

function tables<Harness, Bench>(title: string, groups: readonly CaseGroup<Harness, Bench>[]): string[] {
  const lines = [`### ${title}`, '']
  for (const { name, cases } of groups) {
    lines.push(`| ${name} | needs |`, '|---|---|')
    for (const one of cases) lines.push(`| ${one.name} | ${(one.gates ?? []).map(({ text }) => text).join('; ')} |`)
    lines.push('')
  }
  return lines
}
