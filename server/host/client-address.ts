/**
 * Whom a network address stands for, where uploads are counted by it: an IPv4 address as it is, of an IPv6 address the
 * network of 64 bits, because whoever has one address of it has all of them.
 */
import { isIPv6 } from 'node:net'

/** Undefined where nobody knows an address: a UNIX socket without a proxy. */
export function clientOf(address: string | undefined): string | undefined {
  if (address === undefined || address === '') return undefined
  const plain = address.replace(/%.*$/, '').toLowerCase()
  if (!isIPv6(plain)) return plain
  const mapped = /^::ffff:(\d+\.\d+\.\d+\.\d+)$/.exec(plain)
  if (mapped) return mapped[1]
  return `${groupsOf(plain).slice(0, 4).join(':')}::/64`
}

/** All eight groups, without leading zeros. */
function groupsOf(address: string): string[] {
  const [head = '', tail] = address.split('::', 2)
  const groups = (part: string) => (part === '' ? [] : part.split(':').flatMap(hexOf))
  const [first, last] = [groups(head), groups(tail ?? '')]
  const missing = Array.from({ length: 8 - first.length - last.length }, () => '0')
  return [...first, ...missing, ...last].map((group) => Number.parseInt(group, 16).toString(16))
}

/** The last two groups may be written as an IPv4 address. */
function hexOf(group: string): string[] {
  const bytes = group.split('.').map(Number)
  if (bytes.length !== 4) return [group]
  const [a, b, c, d] = bytes as [number, number, number, number]
  return [(a * 256 + b).toString(16), (c * 256 + d).toString(16)]
}
