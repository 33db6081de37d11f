import { expect, it } from 'vitest'
import { Ledger } from './ledger.ts'
import { maxUndone } from './offset-metadata.ts'

const reopened = (ledger: Ledger, handover = false): Ledger => {
  const { offset, metadata } = handover ? ledger.handover() : ledger.progress()
  return new Ledger(offset, metadata)
}

it('never passes work that is not done, and remembers what is done beyond it', () => {
  const ledger = new Ledger(10, null)
  for (const offset of [10, 11, 12, 13]) ledger.start(offset)
  for (const offset of [13, 11]) ledger.finish(offset)
  expect(ledger.watermark).toBe(10)
  const next = reopened(ledger)
  expect([10, 11, 12, 13, 14].map((offset) => next.isDone(offset))).toEqual([false, true, false, true, false])
  for (const offset of [10, 12]) next.finish(offset)
  expect(next.progress()).toEqual({ offset: 14, metadata: '' })
})

it('counts a start that never ended, and no other', () => {
  let ledger = new Ledger(0, null)
  expect(ledger.start(0)).toBe(0)
  ledger = reopened(ledger)
  expect(ledger.start(0)).toBe(1)
  ledger.giveBack(0)
  expect(ledger.start(0)).toBe(1)
  ledger = reopened(ledger, true)
  expect(ledger.start(0)).toBe(1)
  ledger = reopened(ledger)
  expect(ledger.start(0)).toBe(2)
})

it('a start is alive after a handover was written', () => {
  const ledger = new Ledger(0, null)
  ledger.start(0)
  ledger.handover()
  expect(reopened(ledger).start(0)).toBe(1)
})

it('takes offsets nobody ever saw for done: the log has gaps', () => {
  const ledger = new Ledger(0, null)
  for (const offset of [3, 9]) ledger.start(offset)
  ledger.finish(3)
  expect(ledger.watermark).toBe(9)
})

it('a record that is passed over holds nothing up and counts no start', () => {
  const ledger = new Ledger(0, null)
  ledger.pass(0)
  ledger.start(1)
  ledger.finish(1)
  expect(ledger.undone).toEqual([0])
  expect(reopened(ledger).start(0)).toBe(0)
})

it('has room for a bounded number, and always for those it has', () => {
  const ledger = new Ledger(0, null)
  for (let offset = 0; offset < maxUndone; offset++) ledger.start(offset)
  expect([0, maxUndone].map((offset) => ledger.hasRoomFor(offset))).toEqual([true, false])
  ledger.finish(5)
  expect(ledger.hasRoomFor(maxUndone)).toBe(true)
})
