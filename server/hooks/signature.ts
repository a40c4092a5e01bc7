/**
 * Signatures of Standard Webhooks (https://www.standardwebhooks.com): who has the secret knows that a payload is ours,
 * when it was sent, and what was sent before. With several secrets every one signs, so that they can be exchanged.
 */
import { createHmac } from 'node:crypto'

const prefix = 'whsec_'

/** The key that a secret stands for: `whsec_` and 24 to 64 bytes in base64. Undefined when it is none. */
export function keyOf(secret: string): Buffer | undefined {
  if (!secret.startsWith(prefix)) return undefined
  const text = secret.slice(prefix.length)
  const key = Buffer.from(text, 'base64')
  const isWhole = key.toString('base64').replace(/=+$/, '') === text.replace(/=+$/, '')
  return isWhole && key.length >= 24 && key.length <= 64 ? key : undefined
}

/** The headers that sign a payload; `at` in milliseconds since the epoch. */
export function signed(
  keys: readonly Buffer[],
  id: string,
  at: number,
  body: string,
): Record<string, string> {
  const timestamp = String(Math.floor(at / 1000))
  const headers = { 'webhook-id': id, 'webhook-timestamp': timestamp }
  if (keys.length === 0) return headers
  const signatures = keys.map((key) => {
    const digest = createHmac('sha256', key).update(`${id}.${timestamp}.${body}`).digest('base64')
    return `v1,${digest}`
  })
  return { ...headers, 'webhook-signature': signatures.join(' ') }
}
