import { expect, it } from 'vitest'
import { decodeState, encodeState, maxMetadataLength, maxUndone, type Undone } from './offset-metadata.ts'

/** mulberry32 */
function randomFrom(seed: number): () => number {
  let state = seed
  return () => {
    state = (state + 0x6d2b79f5) | 0
    let t = Math.imul(state ^ (state >>> 15), 1 | state)
    t = (t + Math.imul(t ^ (t >>> 7), 61 | t)) ^ t
    return ((t ^ (t >>> 14)) >>> 0) / 2 ** 32
  }
}

it('reads back what it wrote, for any pattern', () => {
  const random = randomFrom(7)
  for (let round = 0; round < 2_000; round++) {
    const watermark = Math.floor(random() * 1e12)
    const undone: Undone = new Map()
    const spread = 1 + Math.floor(random() ** 4 * 100_000)
    let offset = watermark
    for (let n = 1 + Math.floor(random() * (maxUndone - 1)); n > 0; n--) {
      undone.set(offset, Math.floor(random() ** 3 * 128))
      offset += 1 + Math.floor(random() * spread)
    }
    const frontier = offset + Math.floor(random() * 3)
    const metadata = encodeState(watermark, frontier, undone)
    expect(decodeState(watermark, metadata)).toEqual({ frontier, undone })
    expect(metadata.length).toBeLessThanOrEqual(maxMetadataLength)
  }
})

it('fits whatever is undone, up to the most that may be', () => {
  const undone: Undone = new Map(Array.from({ length: maxUndone }, (_, i) => [i * 2 ** 34, 1_000 + i]))
  expect(encodeState(0, maxUndone * 2 ** 34, undone).length).toBeLessThanOrEqual(maxMetadataLength)
})

it('says little about the usual: one long job and a billion done behind it', () => {
  expect(encodeState(5, 1e9, new Map([[5, 1]])).length).toBeLessThan(20)
  expect(encodeState(5, 5, new Map())).toBe('')
})

it('bounds counts and keeps whether a start is alive', () => {
  const { undone } = decodeState(
    0,
    encodeState(
      0,
      2,
      new Map([
        [0, 1_000],
        [1, 1_001],
      ]),
    ),
  )
  expect([...undone.values()]).toEqual([126, 127])
})

it.each([null, '', 'checkpoint of another program', 'i1', 'i1////'])('takes %s for nothing said', (metadata) => {
  expect(decodeState(7, metadata)).toEqual({ frontier: 7, undone: new Map() })
})

it('does not take what was written beside another offset for its own', () => {
  const metadata = encodeState(100, 200, new Map([[100, 1]]))
  expect(decodeState(50, metadata)).toEqual({ frontier: 50, undone: new Map() })
})

it('says nothing where a part is missing', () => {
  const metadata = encodeState(100, 100_000, new Map([[100, 1]]))
  for (let length = 0; length < metadata.length; length++) {
    const { frontier, undone } = decodeState(100, metadata.slice(0, length))
    expect(undone.size === 0 ? frontier : 100).toBe(100)
  }
})
