import { connect } from 'node:net'

/** How a server shows that it serves: what it answers to the first bytes of a connection. */
export interface Probe {
  /** Bytes to send; empty where the server speaks first. */
  readonly send: string | Uint8Array
  /** Whether what has arrived of the answer, read as latin1, says that the server is ready. */
  readonly ready: (answer: string) => boolean
}

/** Whether one connection gets the answer within `timeoutMs`. A refused or closed connection is a plain no. */
export function answers(host: string, port: number, probe: Probe, timeoutMs: number): Promise<boolean> {
  return new Promise((resolve) => {
    const socket = connect({ host, port })
    let answer = ''
    const end = (ready: boolean): void => {
      socket.destroy()
      resolve(ready)
    }
    socket.setTimeout(timeoutMs, () => end(false))
    socket.once('error', () => end(false))
    socket.once('close', () => end(false))
    socket.once('connect', () => {
      if (probe.send.length > 0) socket.write(probe.send)
    })
    socket.on('data', (data) => {
      answer += data.toString('latin1')
      if (probe.ready(answer)) end(true)
    })
  })
}

export const http = (path: string): Probe => ({
  send: `GET ${path} HTTP/1.0\r\nHost: localhost\r\n\r\n`,
  ready: (answer) => /^HTTP\/1\.[01] 200/.test(answer),
})

export const speaksRedis: Probe = { send: 'PING\r\n', ready: (answer) => /^(\+PONG|-NOAUTH)/.test(answer) }

/** A start-up message: the answer asks for a password once connections are accepted, and is an error until then. */
export function postgresReady(user: string): Probe {
  const body = Buffer.from(`\0\x03\0\0user\0${user}\0\0`, 'latin1')
  const length = Buffer.alloc(4)
  length.writeUInt32BE(body.length + 4)
  return { send: Buffer.concat([length, body]), ready: (answer) => answer.startsWith('R') }
}

/** The protocol's header is answered by connection.start, a method frame on channel 0. */
export const speaksAmqp: Probe = { send: 'AMQP\0\0\x09\x01', ready: (answer) => answer.startsWith('\x01\0\0') }

/** ApiVersions version 0, correlation id 7. */
export const speaksKafka: Probe = {
  send: Buffer.from([0, 0, 0, 10, 0, 18, 0, 0, 0, 0, 0, 7, 0, 0]),
  ready: (answer) => answer.startsWith('\0\0\0\x07\0\0', 4),
}

/** The client's preface and an empty SETTINGS frame are answered by a SETTINGS frame. */
export const speaksHttp2: Probe = {
  send: 'PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\x04\0\0\0\0\0',
  ready: (answer) => answer.startsWith('\x04', 3),
}
