/** Where a server is: its address in words, and its own folder in that of the uploads. */
import path from 'node:path'
import type { Config } from './config.ts'

/** How others are told which server has the folder. */
export function placeOf({ unixSock, host, port }: Pick<Config, 'unixSock' | 'host' | 'port'>): string {
  return unixSock ?? `${host}:${port}`
}

/** Records and the entries of owner and guests, where no Redis keeps the servers apart. */
export const ownFolder = (directory: string): string => path.join(directory, '.tidemark')
