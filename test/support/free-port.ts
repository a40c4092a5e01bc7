// A port on loopback that nobody listens on, from below the range from which systems take the ports of outgoing
// connections (32768 or 49152 and up). So a server that is killed and started again on its port finds it free, and a
// client that keeps trying meanwhile cannot be connected to itself, which the kernel does inside that range.

import { once } from 'node:events'
import { createServer } from 'node:net'

const lowest = 15_000
const count = 17_000
const handedOut = new Set<number>()

export async function freePort(): Promise<number> {
  for (;;) {
    const port = lowest + Math.floor(Math.random() * count)
    if (handedOut.has(port) || !(await isFree(port))) continue
    handedOut.add(port)
    return port
  }
}

async function isFree(port: number): Promise<boolean> {
  const probe = createServer()
  try {
    probe.listen(port, '127.0.0.1')
    await once(probe, 'listening')
  } catch {
    return false
  }
  probe.close()
  await once(probe, 'close')
  return true
}
