/** What an operator is told who lets everybody in, from other machines too. */
import type { Config } from '../config.ts'

export const openToAll =
  'everybody who can reach this address may upload, and read what they know the URL of; see --auth'

export function isOpenToAll({ auth, unixSock, host }: Pick<Config, 'auth' | 'unixSock' | 'host'>): boolean {
  return auth === 'none' && unixSock === undefined && !isLoopback(host)
}

/** Addresses that only this machine can reach. */
function isLoopback(host: string): boolean {
  return /^(localhost|127(\.\d{1,3}){3}|::1)$/i.test(host)
}
