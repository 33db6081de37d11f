import { mkdtemp, rm, writeFile } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import type { IdemqError } from '@idemq/core'
import { afterAll, expect, it, onTestFinished } from 'vitest'
import { certificate, privateKey } from '../test/certificate.ts'
import { closeAll, freshSchema, queue, signal, testServer } from '../test/server.ts'
import { postgres } from './index.ts'

const { admin, server, url } = await testServer()
const directory = await mkdtemp(join(tmpdir(), 'idemq-postgres-'))
const authority = join(directory, 'authority.pem')
await writeFile(authority, certificate)
afterAll(() => rm(directory, { recursive: true, force: true }))

/** Puts a file into the server's data directory, readable for the server alone. */
async function put(name: string, content: string): Promise<void> {
  const lines = content
    .trimEnd()
    .split('\n')
    .map((line) => `('${line}')`)
  await admin.query(`COPY (VALUES ${lines.join(',')}) TO PROGRAM 'umask 077; cat > ${name}'`)
}

await put('server.crt', certificate)
await put('server.key', privateKey)
await admin.query("CREATE ROLE strict LOGIN PASSWORD 'secret' SUPERUSER")
await admin.query(`COPY (SELECT 1) TO PROGRAM 'sed -i "1i hostnossl all strict all reject" pg_hba.conf'`)
await admin.query('ALTER SYSTEM SET ssl = on')
await server.restart()

async function declared(params: Record<string, string>, user = 'strict'): Promise<IdemqError | undefined> {
  const target = new URL(url)
  target.username = user
  if (user === 'strict') target.password = 'secret'
  for (const [name, value] of Object.entries(params)) target.searchParams.set(name, value)
  const adapter = postgres({ url: target.href, schema: freshSchema() })
  onTestFinished(() => closeAll(adapter))
  const error = await adapter.driver.declare(queue, 'create', signal).then(
    () => undefined,
    (thrown: IdemqError) => thrown,
  )
  expect(error?.message ?? '').not.toContain('secret')
  return error
}

it('a trusted certificate is accepted, and what is sent goes over TLS', async () => {
  expect(await declared({ sslmode: 'verify-full', sslrootcert: authority })).toBeUndefined()
})

it('a certificate that nobody vouches for is UNAUTHORIZED, and is not tried again', async () => {
  const error = await declared({ sslmode: 'verify-full' })
  expect(error).toMatchObject({ code: 'UNAUTHORIZED', retryable: false })
  expect(error?.message).toContain('sslrootcert')
})

it('a server that demands TLS is UNAUTHORIZED without', async () => {
  const error = await declared({ sslmode: 'disable' })
  expect(error).toMatchObject({ code: 'UNAUTHORIZED', retryable: false })
  expect(error?.message).toMatch(/no encryption/)
})

it('a file of the URL that is not there is INVALID_OPTION and named', async () => {
  const error = await declared({ sslmode: 'verify-full', sslrootcert: join(directory, 'none.pem') })
  expect(error).toMatchObject({ code: 'INVALID_OPTION', message: expect.stringContaining('none.pem') })
})
