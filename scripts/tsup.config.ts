import type { Options } from 'tsup'

// node:sqlite has no name without its prefix.
const config: Options = { format: ['esm'], target: 'node22', removeNodeProtocol: false, silent: true }

export default config
