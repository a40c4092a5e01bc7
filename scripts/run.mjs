// Runs a command so that a person sees one line while it works and the command's own words only when it fails.
// A signal that ends this process ends the command first: nothing goes on installing behind a closed terminal.

import { spawn } from 'node:child_process'

/** Some tools say the reason first and then their manual, others say it last. */
const shownHeadLines = 30
const shownTailLines = 30

/**
 * @param {string} title what the person reads
 * @param {string} command
 * @param {string[]} args
 * @param {{ cwd?: string, env?: NodeJS.ProcessEnv }} [options]
 * @returns {Promise<void>} rejects with the command's output when it fails
 */
export async function runQuietly(title, command, args, options = {}) {
  const startedAtMs = Date.now()
  process.stderr.write(`tidemark: ${title} ... `)
  const { code, output } = await collect(command, args, options)
  const seconds = ((Date.now() - startedAtMs) / 1000).toFixed(1)
  process.stderr.write(code === 0 ? `done in ${seconds} s\n` : 'failed\n')
  if (code !== 0) throw new Error(`${title} failed (${code}):\n${output}`)
}

/**
 * @param {string} command
 * @param {string[]} args
 * @param {{ cwd?: string, env?: NodeJS.ProcessEnv }} options
 * @returns {Promise<{ code: number | string, output: string }>}
 */
function collect(command, args, options) {
  return new Promise((resolve) => {
    const child = spawn(command, args, { ...options, stdio: ['ignore', 'pipe', 'pipe'] })
    let output = ''
    const keep = (/** @type {string} */ text) => {
      output += text
    }
    child.stdout.setEncoding('utf8').on('data', keep)
    child.stderr.setEncoding('utf8').on('data', keep)

    const end = (/** @type {NodeJS.Signals} */ signal) => {
      child.kill(signal)
      child.once('close', () => process.exit(1))
    }
    process.on('SIGINT', end).on('SIGTERM', end).on('SIGHUP', end)
    const settle = (/** @type {number | string} */ code) => {
      process.off('SIGINT', end).off('SIGTERM', end).off('SIGHUP', end)
      resolve({ code, output: shorten(output) })
    }
    child.once('error', (error) => settle(error.message))
    child.once('close', (code, signal) => settle(code ?? signal ?? 'unknown'))
  })
}

/** @param {string} output */
function shorten(output) {
  const lines = output.trimEnd().split('\n')
  if (lines.length <= shownHeadLines + shownTailLines) return lines.join('\n')
  return [...lines.slice(0, shownHeadLines), '...', ...lines.slice(-shownTailLines)].join('\n')
}
