/** One line of a report. */
export interface Line {
  readonly what: string
  readonly value: string
  readonly target?: { readonly text: string; readonly met: boolean }
}

const whatWidth = 84
const valueWidth = 18

export function heading(text: string): void {
  console.log(`\n${text}`)
}

/** Prints lines as a table. A target that is missed says so; it fails nothing. */
export function print(...lines: readonly Line[]): void {
  for (const { what, value, target } of lines) {
    const verdict = target ? `   target ${target.text}: ${target.met ? 'met' : 'SHORT'}` : ''
    console.log(`  ${what.padEnd(whatWidth)}${value.padStart(valueWidth)}${verdict}`)
  }
}

export function atLeast(value: number, target: number, text: string): { text: string; met: boolean } {
  return { text: `≥ ${text}`, met: value >= target }
}

export function atMost(value: number, target: number, text: string): { text: string; met: boolean } {
  return { text: `≤ ${text}`, met: value <= target }
}

export function below(value: number, target: number, text: string): { text: string; met: boolean } {
  return { text: `< ${text}`, met: value < target }
}

const integer = new Intl.NumberFormat('en-US', { maximumFractionDigits: 0 })

export const count = (n: number): string => integer.format(n)
export const rate = (jobsPerSecond: number): string => `${integer.format(jobsPerSecond)} jobs/s`
export const us = (n: number): string => `${n.toFixed(1)} µs`
export const ms = (n: number): string => `${n.toFixed(2)} ms`
export const mib = (bytes: number): string => `${(bytes / 1_048_576).toFixed(1)} MiB`
/** Cut, not rounded: what is below a target never looks like it. */
export const ratio = (n: number): string => (Math.floor(n * 100) / 100).toFixed(2)
export const percent = (fraction: number): string => `${(fraction * 100).toFixed(1)} %`
