import { createServer } from 'node:net'

const firstPort = 20_000
const lastPort = 29_999
const taken = new Set<number>()

/**
 * A port that is free on `address` now and that no other call of this process gets. Below the range from which the
 * system takes ports for outgoing connections: while a server is down, a client that keeps connecting could otherwise
 * be given the server's own port and end up connected to itself.
 */
export async function freePort(address: string): Promise<number> {
  for (;;) {
    const port = firstPort + Math.floor(Math.random() * (lastPort - firstPort + 1))
    if (taken.has(port) || !(await listens(port, address))) continue
    taken.add(port)
    return port
  }
}

function listens(port: number, address: string): Promise<boolean> {
  return new Promise((resolve) => {
    const server = createServer()
    // An address that is not of this machine (a remote engine) cannot be tried here.
    server.once('error', (error: NodeJS.ErrnoException) => resolve(error.code !== 'EADDRINUSE'))
    server.listen(port, address, () => server.close(() => resolve(true)))
  })
}
