/** Arrays as Postgres reads and writes them as text: `pg` takes several times as long, element by element. */

export function numberArray(values: readonly (number | string)[]): string {
  return `{${values.join(',')}}`
}

export function textArray(values: readonly (string | undefined)[]): string {
  return `{${values.map((value) => (value === undefined ? 'NULL' : quoted(value))).join(',')}}`
}

function quoted(text: string): string {
  return `"${special.test(text) ? text.replace(/["\\]/g, '\\$&') : text}"`
}

const special = /["\\]/

/** Elements of an array of numbers: `{1,2}`. */
export function numbersOf(array: string): string[] {
  return array.slice(1, -1).split(',')
}

/** An array of places of rows, each like `(0,1)`. */
export function placeArray(places: readonly string[]): string {
  return `{"${places.join('","')}"}`
}

export function placesOf(array: string): string[] {
  return array.slice(2, -2).split('","')
}
