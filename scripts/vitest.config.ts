import type { ViteUserConfig } from 'vitest/config'

const config: ViteUserConfig = {
  root: new URL('..', import.meta.url).pathname,
  resolve: { conditions: ['idemq-source'] },
  ssr: { resolve: { conditions: ['idemq-source'], externalConditions: ['idemq-source'] } },
  test: {
    include: ['packages/*/{src,test}/**/*.test.ts', 'conformance/{src,test}/**/*.test.ts', 'examples/**/*.test.ts'],
    pool: 'forks',
    execArgv: ['--conditions=idemq-source', '--disable-warning=ExperimentalWarning'],
    maxWorkers: 2,
    testTimeout: 60_000,
    hookTimeout: 60_000,
    reporters: ['default'],
  },
}

export default config
