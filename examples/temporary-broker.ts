/** For tests: a broker, inbox and outbox in a directory that is removed afterwards. */
import { rmSync } from 'node:fs'
import { mkdtemp } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { type Connection, openConnection } from './connection.ts'

export interface TemporaryBroker extends Connection, AsyncDisposable {
  /** A path in the directory. */
  file(name: string): string
  /** Another connection to the same broker, as another process would have. Closed with it. */
  another(): Promise<Connection>
}

/** @param query options of the broker, e.g. `?maxBodyBytes=40000` */
export async function openTemporaryBroker(query = ''): Promise<TemporaryBroker> {
  const directory = await mkdtemp(join(tmpdir(), 'idemq-example-'))
  const file = (name: string): string => join(directory, name)
  const open = (): Promise<Connection> => openConnection({ IDEMQ_URL: `sqlite:${file('jobs.db')}${query}` })
  const first = await open()
  const connections = [first]
  return {
    ...first,
    file,
    async another() {
      const connection = await open()
      connections.push(connection)
      return connection
    },
    async [Symbol.asyncDispose]() {
      for (const { close } of connections.toReversed()) await close()
      rmSync(directory, { recursive: true })
    },
  }
}
