import { execFile } from 'node:child_process'
import { promisify } from 'node:util'
import { expect, it } from 'vitest'
import { Events, type IdemqEvent } from './events.ts'

const detail = { queue: 'q', group: 'default' }

it('tells listeners of a type and of all types, synchronously and in order, with the time', () => {
  let nowMs = 1
  const events = new Events(() => nowMs++)
  const seen: string[] = []
  events.on('resumed', ({ type, atMs, queue }) => seen.push(`one ${type} ${atMs} ${queue}`))
  events.on('*', ({ type, atMs }) => seen.push(`all ${type} ${atMs}`))
  events.emit('resumed', detail)
  events.emit('warning', { message: 'x' })
  expect(seen).toEqual(['one resumed 1 q', 'all resumed 1', 'all warning 2'])
})

it('builds nothing nobody wants, and forgets who unsubscribed', () => {
  let clockReads = 0
  const events = new Events(() => ++clockReads)
  events.emit('resumed', detail)
  expect([clockReads, events.wants('resumed')]).toEqual([0, false])
  const seen: IdemqEvent[] = []
  const stop = events.on('warning', (event) => seen.push(event))
  expect([events.wants('resumed'), events.wants('warning')]).toEqual([false, true])
  stop()
  stop()
  events.emit('warning', { message: 'x' })
  expect([clockReads, events.wants('warning'), seen]).toEqual([0, false, []])
  const stopAll = events.on('*', () => {})
  expect(events.wants('resumed')).toBe(true)
  stopAll()
  expect(events.wants('resumed')).toBe(false)
})

it('lets a listener unsubscribe itself while it is told', () => {
  const events = new Events(() => 0)
  const seen: string[] = []
  const stop = events.on('resumed', () => {
    seen.push('once')
    stop()
  })
  events.on('resumed', () => seen.push('always'))
  events.emit('resumed', detail)
  events.emit('resumed', detail)
  expect(seen).toEqual(['once', 'always', 'always'])
})

it('reports a listener that throws as an uncaught exception, and tells the others all the same', async () => {
  const program = `
    import { Events } from '${new URL('./events.ts', import.meta.url).href}'
    const said = []
    process.on('uncaughtException', (error) => said.push('uncaught ' + error.message))
    const events = new Events(() => 0)
    events.on('resumed', () => { throw new Error('listener') })
    events.on('resumed', () => said.push('told'))
    events.emit('resumed', {})
    said.push('emitted')
    setImmediate(() => console.log(said.join(', ')))`
  const options = ['--conditions=idemq-source', '--disable-warning=ExperimentalWarning', '--input-type=module']
  const { stdout } = await promisify(execFile)(process.execPath, [...options, '--eval', program])
  expect(stdout.trim()).toBe('told, emitted, uncaught listener')
})
