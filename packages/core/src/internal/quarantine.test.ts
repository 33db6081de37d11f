import { expect, it } from 'vitest'
import { entryOf } from '../../test/entries.ts'
import { ManualClock } from '../clock.ts'
import { Quarantine, quarantineMs } from './quarantine.ts'

const owner = {}

const here = {}

it('holds nothing up while there is no suspect', () => {
  const quarantine = new Quarantine(new ManualClock())
  quarantine.started(entryOf('ordinary'))
  expect([quarantine.holdMs(), quarantine.take(owner)]).toEqual([0, undefined])
})

it('lets a suspect run once what runs has ended, and nothing ordinary start meanwhile', async () => {
  const clock = new ManualClock()
  const quarantine = new Quarantine(clock)
  const [ordinary, suspect] = [entryOf('ordinary'), entryOf('suspect')]
  quarantine.started(ordinary)
  await clock.advance(1_000)
  quarantine.add(suspect, owner)
  expect(suspect.suspect).toBe(true)
  expect(quarantine.take(owner)).toBeUndefined()
  expect(quarantine.holdMs()).toBe(quarantineMs - 1_000)
  quarantine.ended(ordinary)
  expect(quarantine.take(owner)).toBe(suspect)
  expect(quarantine.holdMs()).toBe(quarantineMs)
  quarantine.started(suspect)
  await clock.advance(1_000)
  expect(quarantine.holdMs()).toBe(quarantineMs - 1_000)
  quarantine.ended(suspect)
  expect([quarantine.holdMs(), quarantine.take(owner)]).toEqual([0, undefined])
})

it('waits for a long job, and is waited for, for at most its time', async () => {
  const clock = new ManualClock()
  const quarantine = new Quarantine(clock)
  const suspects = [entryOf('one'), entryOf('two')]
  quarantine.started(entryOf('a long job'))
  for (const suspect of suspects) quarantine.add(suspect, owner)
  await clock.advance(quarantineMs - 1)
  expect(quarantine.take(owner)).toBeUndefined()
  await clock.advance(1)
  expect(quarantine.take(owner)).toBe(suspects[0])
  quarantine.started(suspects[0]!)
  await clock.advance(quarantineMs)
  // A killer kills at once: this one is no killer, the others go on beside it. The next suspect waits its turn.
  expect(quarantine.holdMs()).toBe(0)
  expect(quarantine.take(owner)).toBeUndefined()
  quarantine.ended(suspects[0]!)
  expect(quarantine.take(owner)).toBe(suspects[1])
})

it('is not stuck with a suspect that was taken and never started', () => {
  const quarantine = new Quarantine(new ManualClock())
  const [first, second] = [entryOf('first'), entryOf('second')]
  quarantine.add(first, owner)
  quarantine.add(second, owner)
  expect(quarantine.take(owner)).toBe(first)
  expect(quarantine.take(owner)).toBeUndefined()
  quarantine.ended(first)
  expect(quarantine.take(owner)).toBe(second)
})

it('hands back who waits at a shutdown', () => {
  const quarantine = new Quarantine(new ManualClock())
  const suspects = [entryOf('one'), entryOf('two')]
  for (const suspect of suspects) quarantine.add(suspect, owner)
  expect(quarantine.drain(owner)).toEqual(suspects)
  expect([quarantine.drain(owner), quarantine.take(owner), quarantine.holdMs()]).toEqual([[], undefined, 0])
})

it('is one for all queues: a suspect of one waits for what runs in another, and each owner takes its own', () => {
  const quarantine = new Quarantine(new ManualClock())
  const there = {}
  const [ordinary, first, second] = [entryOf('ordinary'), entryOf('first'), entryOf('second')]
  quarantine.started(ordinary)
  quarantine.add(first, here)
  quarantine.add(second, there)
  expect(quarantine.take(here)).toBeUndefined()
  quarantine.ended(ordinary)
  expect(quarantine.take(there)).toBeUndefined()
  expect(quarantine.take(here)).toBe(first)
  quarantine.ended(first)
  expect(quarantine.drain(here)).toEqual([])
  expect(quarantine.take(there)).toBe(second)
})

it('calls back when somebody may start who might not before', () => {
  const quarantine = new Quarantine(new ManualClock())
  const [ordinary, suspect] = [entryOf('ordinary'), entryOf('suspect')]
  let calls = 0
  const stop = quarantine.onChange(() => calls++)
  quarantine.started(ordinary)
  quarantine.add(suspect, here)
  quarantine.ended(ordinary)
  expect(calls).toBe(1)
  quarantine.take(here)
  quarantine.ended(suspect)
  expect(calls).toBe(2)
  quarantine.ended(entryOf('nobody waits'))
  expect(calls).toBe(2)
  stop()
  quarantine.add(suspect, here)
  quarantine.take(here)
  quarantine.ended(suspect)
  expect(calls).toBe(2)
})
