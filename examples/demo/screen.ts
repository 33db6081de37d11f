/** What the demo prints: lines, and below them a bar that is redrawn on a terminal and sparse elsewhere. */

export interface Screen {
  /** A line of its own. */
  say(text?: string): void
  /** A line with the seconds since the screen was opened: something happened. */
  event(text: string): void
  /** `done` of `total`, with a note. Elsewhere than on a terminal, a line per tenth. */
  progress(done: number, total: number, note: string): void
  /** Ends the bar; the next `progress` starts another. */
  endProgress(): void
}

const barWidth = 30

export function openScreen(out: NodeJS.WriteStream): Screen {
  const openedAtMs = performance.now()
  let bar = ''
  let lastTenth = -1

  const write = (text: string): void => {
    if (bar !== '') out.write(`\r\x1b[2K${text}\n${bar}`)
    else out.write(`${text}\n`)
  }
  return {
    say: (text = '') => write(text),
    event: (text) => write(`${((performance.now() - openedAtMs) / 1_000).toFixed(1).padStart(6)} s  ${text}`),
    progress(done, total, note) {
      const share = total === 0 ? 1 : Math.min(1, done / total)
      const filled = Math.round(share * barWidth)
      const text = `[${'█'.repeat(filled)}${'░'.repeat(barWidth - filled)}] ${percent(share)}  ${note}`
      if (out.isTTY) {
        // Cut to the terminal: a line that wraps cannot be redrawn in place.
        bar = text.slice(0, (out.columns ?? 80) - 1)
        out.write(`\r\x1b[2K${bar}`)
        return
      }
      const tenth = Math.floor(share * 10)
      if (tenth <= lastTenth) return
      lastTenth = tenth
      out.write(`${text}\n`)
    },
    endProgress() {
      if (bar !== '') out.write('\r\x1b[2K')
      bar = ''
      lastTenth = -1
    },
  }
}

function percent(share: number): string {
  return `${Math.floor(share * 100)} %`.padStart(5)
}

/** 1234 → '1,234'. */
export function count(n: number): string {
  return n.toLocaleString('en-US')
}
