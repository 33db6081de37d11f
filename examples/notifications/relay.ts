/**
 * Moves what transactions left in the outbox to the broker. Any number may run.
 *
 * Run: node --conditions=idemq-source notifications/relay.ts
 */
import { openConnection } from '../connection.ts'
import { stopOnSignal } from '../stop-on-signal.ts'

const connection = await openConnection()
await connection.relay().start()
console.log('relaying the outbox; Ctrl-C stops')
stopOnSignal(connection.close)
