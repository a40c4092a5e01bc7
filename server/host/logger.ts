/**
 * The one logger: JSON lines for machines, coloured ones for a person at a terminal. Secrets never get this far. The
 * lines of a worker say which one it is.
 */
import { type Logger, pino } from 'pino'
import type { Config } from '../config.ts'

export async function makeLogger(
  config: Pick<Config, 'logLevel' | 'logFormat'>,
  isTerminal: boolean,
  worker?: number,
): Promise<Logger> {
  const isPretty = config.logFormat === 'pretty' || (config.logFormat === 'auto' && isTerminal)
  const base = worker === undefined ? null : { worker }
  const options = { level: config.logLevel, base, timestamp: pino.stdTimeFunctions.isoTime }
  if (!isPretty) return pino({ ...options, formatters: { level: (label) => ({ level: label }) } })

  // Only terminals pay for loading it. Synchronous, so that the last words of a dying process are seen.
  const { default: pretty } = await import('pino-pretty')
  return pino(
    options,
    pretty({ sync: true, colorize: isTerminal, singleLine: true, translateTime: 'HH:MM:ss.l' }),
  )
}
